"""What the tiny world is made of: steps, wordings, written solutions, and requests that are no problems."""
