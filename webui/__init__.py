"""The page on which checkpoints are compared; it knows the controller by its wire alone."""
