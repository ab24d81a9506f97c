"""The tiny world: problems, a corpus and a tokenizer small enough that a base model is pre-trained in minutes on a CPU."""
