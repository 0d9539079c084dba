"""How the demo checkpoints are made: a drawn world, questions about it, and LLaVA's order."""
