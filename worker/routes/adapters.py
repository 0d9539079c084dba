"""``POST /v1/load_lora_adapter`` and ``/v1/unload_lora_adapter``: vLLM's, with rules for paths."""

from __future__ import annotations

import logging
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from pydantic import Field

from controller.protocol.errors import BadRequestError, PermissionDeniedError
from controller.protocol.message import Message
from worker.engine.protocol import Engine
from worker.lifecycle import Lifecycle

_log = logging.getLogger(__name__)


class LoadAdapter(Message):
    """The body of a load; ``lora_path`` is a folder on the worker's machine."""

    lora_name: str = Field(min_length=1, max_length=256)
    lora_path: str = Field(min_length=1)


class UnloadAdapter(Message):
    """The body of an unload."""

    lora_name: str = Field(min_length=1)


def adapter_routes(lifecycle: Lifecycle, root: Path | None) -> APIRouter:
    """The routes.

    Args:
        lifecycle: whose engine takes adapters.
        root: the folder that they have to lie below; None refuses all.
    """
    router = APIRouter(tags=["adapters"])

    @router.post("/v1/load_lora_adapter")
    async def load_lora_adapter(body: LoadAdapter) -> PlainTextResponse:
        """Serves an adapter under a name of its own, from now on."""
        path = _allowed(_required(root), body.lora_path)
        await _engine(lifecycle).load_adapter(body.lora_name, str(path))
        lifecycle.models_changed()
        _log.info("serves the adapter %s from %s", body.lora_name, path)
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")

    @router.post("/v1/unload_lora_adapter")
    async def unload_lora_adapter(body: UnloadAdapter) -> PlainTextResponse:
        """Serves an adapter no longer; answers that it is making go on."""
        _required(root)
        await _engine(lifecycle).unload_adapter(body.lora_name)
        lifecycle.models_changed()
        _log.info("serves the adapter %s no longer", body.lora_name)
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")

    return router


def _required(root: Path | None) -> Path:
    if root is None:
        raise PermissionDeniedError(
            "This worker takes no adapters while it runs; start it with --allow-runtime-lora"
        )
    return root


def _allowed(root: Path, path: str) -> Path:
    """The folder that is meant, links resolved; names on a hub are not taken.

    Raises:
        PermissionDeniedError: it does not lie below the root, wherever a link in it points.
        BadRequestError: it is no folder.
    """
    root = root.resolve()
    try:
        folder = (root / path).resolve()
        is_there = folder.is_dir()
    except (OSError, RuntimeError, ValueError) as exc:  # too long, links in a circle, a NUL
        raise BadRequestError(f"lora_path: it is no path ({exc})", param="lora_path") from exc
    if not folder.is_relative_to(root) or folder == root:
        raise PermissionDeniedError(
            "lora_path: adapters lie below the folder of --runtime-lora-root (without it, the one "
            "that holds the base)",
            param="lora_path",
        )
    if not is_there:
        raise BadRequestError(f"lora_path: there is no folder {path}", param="lora_path")
    return folder


def _engine(lifecycle: Lifecycle) -> Engine:
    """The engine, once it is ready."""
    return lifecycle.serve(lifecycle.status().models[0].name).engine
