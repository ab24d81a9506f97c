"""The tiny world: problems, corpus and tokenizer, so small that a base model is pre-trained in minutes on a CPU."""
