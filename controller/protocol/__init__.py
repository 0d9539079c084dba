"""The wire: frozen messages, the error tree, server-sent events. It imports no web framework."""
