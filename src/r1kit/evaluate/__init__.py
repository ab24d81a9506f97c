"""How good a model is: what each completion is worth, how sure the averages are, and tables of both."""
