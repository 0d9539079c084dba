"""The recipe for the demo checkpoints: a small drawn world, questions about it, and LLaVA's order."""
