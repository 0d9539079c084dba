"""Gradio, imported with its telemetry off; every module of the page takes ``gr`` from here.

Gradio reads these variables while it is imported, so they cannot wait for a composition root.
"""

from __future__ import annotations

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# Gradio sums up its events with pandas after each one, for a monitoring page that we switch off.
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(2**62)

import gradio as gr

__all__ = ["gr"]
