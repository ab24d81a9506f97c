"""Kinds of work: each file holds one kind's settings and what it does with its inputs."""
