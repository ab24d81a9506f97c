"""What the tiny world is made of: steps, wordings, ways of writing a solution down, and requests that are no problems."""
