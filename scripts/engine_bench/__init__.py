"""Measures the worker's engines side by side over HTTP."""
