"""The relay benchmark's worker as a process that also keeps a lease, as our workers do.

``python -m fault_bench.worker PORT CHUNKS_PER_SECOND [CONTROLLER]``; without a controller it tells
nobody of itself, and a relay has to know its address.
"""

from __future__ import annotations

import asyncio
import sys
import uuid

import httpx
import uvloop
from relay_bench.relays import until_ok
from relay_bench.worker import MODELS, serve

from controller.protocol.fleet import ModelCard, WorkerLoad, WorkerState, WorkerStatus
from worker.registration import Membership, Registration
from worker.settings import WorkerSettings


def status() -> WorkerStatus:
    """What it says of itself."""
    models = [ModelCard(name=name) for name in MODELS]
    return WorkerStatus(
        state=WorkerState.READY, models=models, load=WorkerLoad(running=0, capacity=64)
    )


async def keep_lease(port: int, controller: str) -> None:
    """Registers once it listens, and beats as often as a worker does by default."""
    address = f"http://127.0.0.1:{port}"
    await until_ok(f"{address}/count")
    async with httpx.AsyncClient(trust_env=False) as http:
        registration = Registration(
            [Membership(controller, address)],
            worker_id="worker-" + uuid.uuid4().hex,
            version="0",
            heartbeat_seconds=WorkerSettings.model_fields["heartbeat_seconds"].default,
            status=status,
            http=http,
        )
        await registration.run()


async def main() -> None:
    """Serves until killed."""
    port, chunks_per_second = int(sys.argv[1]), float(sys.argv[2])
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(port, chunks_per_second))
        for controller in sys.argv[3:]:
            tasks.create_task(keep_lease(port, controller))


if __name__ == "__main__":
    uvloop.run(main())
