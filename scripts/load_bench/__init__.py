"""Measures how long checkpoints take to load, and how much memory that fills."""
