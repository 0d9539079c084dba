"""The control plane: which workers live, and who serves a request; it never imports torch."""
