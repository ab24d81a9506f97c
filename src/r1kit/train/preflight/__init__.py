"""Checks of a training stage before its first step: what is measured, its limit, and what to do if it is off.

Nothing here changes a result: weights, gradients and random states are as before afterwards.
"""
