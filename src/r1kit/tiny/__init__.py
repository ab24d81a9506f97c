"""The tiny world: problems, corpus and tokenizer, so small that pre-training a base model takes minutes on a CPU."""
