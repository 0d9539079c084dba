"""Measures decoding on a GPU against generate, and against the memory's bandwidth."""
