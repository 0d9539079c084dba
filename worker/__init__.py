"""The data plane: one base model, one engine, many streams."""
