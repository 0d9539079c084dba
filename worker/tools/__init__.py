"""Programs that turn checkpoints into others, one a module: ``python -m worker.tools.convert``.

They parse a command line and show progress; the work is `worker.checkpoint`'s.
"""
