"""Gradio, imported with its telemetry off; every module of the page takes ``gr`` from here.

Gradio reads these variables while it is imported, so they cannot wait for a composition root.
"""

from __future__ import annotations

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr

__all__ = ["gr"]
