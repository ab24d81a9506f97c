"""How good a model is: verdicts of its completions, averages with intervals, and tables."""
