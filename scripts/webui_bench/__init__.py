"""Measures the page: how many columns it streams, and what a browser makes of them."""
