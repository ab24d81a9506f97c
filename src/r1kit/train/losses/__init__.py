"""Losses as pure functions: of log-probs (`next_token`, `policy_gradient`), of logits (`distillation`), of `scores`.

A loss divides by `Totals`, the counts of the whole update, so any split into micro-batches or over ranks gives the
gradient of one large batch.
"""
