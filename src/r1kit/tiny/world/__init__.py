"""The parts of the tiny world: steps, wordings, written solutions, and requests."""
