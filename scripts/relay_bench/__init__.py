"""Measures what a relay costs: CPU per request and per chunk, time added, hang-ups, memory."""
