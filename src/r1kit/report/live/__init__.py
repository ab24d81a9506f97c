"""Runs that are read while they are written: how far they are, their curves, rollouts, rows and where rows come from.

Nothing here writes, locks or keeps a file open. Each answer reads what is there: the end of a growing file, one step of
rollouts, one page of rows.
"""
