"""GRPO training: `loop` runs the steps, `collect` samples, `metrics` and `log` record, `monitors` and `audit` watch."""
