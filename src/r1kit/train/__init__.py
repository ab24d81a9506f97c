"""The learner: batches, losses, advantages, and the one body that all training shares."""
