"""``python -m worker.inspect``: what a checkpoint is and whether it will fit; loads no weights."""
