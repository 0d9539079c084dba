"""Chats and comparisons on a terminal or in a pipe, whoever makes the answers; no torch."""
