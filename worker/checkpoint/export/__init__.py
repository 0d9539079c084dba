"""Original LLaVA checkpoints as standard Hugging Face ones, that transformers loads by itself."""
