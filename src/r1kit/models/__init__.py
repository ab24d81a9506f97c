"""Networks: Hugging Face's own, plus the attention that packs training rows and caches generation."""
