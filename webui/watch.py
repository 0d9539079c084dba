"""Asks the controller for its workers again and again, once for all open pages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from controller.protocol.fleet import FleetView
from webui.answer import AskedModel
from webui.catalogue import Catalogue, catalogue_of
from webui.client import ControllerClient
from webui.controller_error import ControllerError

_log = logging.getLogger(__name__)


class FleetWatch:
    """Keeps the latest `Catalogue`.

    Args:
        client: the controller.
        interval_seconds: the pause between two questions.
        is_list_fixed: whether the models that can be chosen are for good those of the first
            answer that names any.
    """

    def __init__(
        self, client: ControllerClient, *, interval_seconds: float, is_list_fixed: bool = False
    ) -> None:
        self._client = client
        self._is_list_fixed = is_list_fixed
        self._interval_seconds = interval_seconds
        self._answered_by = client.base_url  # the last one of several
        self.view: FleetView | None = None  # the last answer, whole
        self.observers: list[Callable[[FleetView], None]] = []  # told of each answer
        self.catalogue = Catalogue(
            problem=f"The controller at {client.base_url} has not answered yet.",
            problem_address=client.base_url,
        )

    def describe(self, model: str, worker_id: str | None) -> AskedModel | None:
        """Who a question to this model goes to now; see `Catalogue.describe`."""
        return self.catalogue.describe(model, worker_id)

    async def run(self) -> None:
        """Watches until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._interval_seconds)

    async def refresh(self) -> None:
        """Asks once; a failure becomes the catalogue's problem."""
        before = self.catalogue
        try:
            self.view = await self._client.fleet()
            now = catalogue_of(self.view)
            if self._is_list_fixed:
                now = replace(now, fixed=before.fixed or now.offered or None)
            self.catalogue = now
        except ControllerError as exc:
            self.catalogue = replace(
                before, problem=exc.message, problem_address=self._client.base_url
            )
            if before.problem != exc.message:
                _log.warning("%s", exc.message)
            return
        for observe in self.observers:
            observe(self.view)
        if before.problem is not None or self._answered_by != self._client.base_url:
            self._answered_by = self._client.base_url
            _log.info("the controller at %s answers", self._answered_by)
