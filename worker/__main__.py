"""``python -m worker``: one checkpoint behind one port.

Exit codes: 0 after a stop that was asked for, 1 when the model could not be served, 2 when the
settings are wrong or the port is taken (before anything slow has begun).
"""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Callable, Sequence

from controller.chassis.collecting import kept_from_collector
from controller.chassis.logs import configure_logging
from controller.chassis.network import is_loopback
from controller.chassis.serve import ListenError, Server, listen, serve
from controller.chassis.settings import SettingsError
from controller.chassis.tls import client_context
from controller.protocol.fleet import LoadProgress, ModelCard, WorkerState
from worker.address import address_for
from worker.app import Worker
from worker.checkpoint.facts import describe
from worker.engine.protocol import CacheMemory, Engine
from worker.progress_bar import ProgressBar
from worker.registration import Membership
from worker.routes.body import BodyLimits
from worker.settings import ENV_PREFIX, WorkerSettings

_log = logging.getLogger("worker")  # run as a module, __name__ is "__main__"

EXIT_FAILED = 1
EXIT_USAGE = 2
# uvicorn's own limit only has to catch what the worker's grace period did not end.
AFTER_GRACE_SECONDS = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until it is told to stop, and ends the process; the exit code if it never served."""
    try:
        settings = WorkerSettings.parse(argv, program="python -m worker", env_prefix=ENV_PREFIX)
        configure_logging(level=settings.log_level, log_format=settings.log_format)
        sock = listen(settings.host, settings.port)
        port = int(sock.getsockname()[1])
        memberships = [] if settings.no_register else _memberships(settings, port)
    except (SettingsError, ListenError) as exc:
        sys.stderr.write(f"python -m worker: {exc}\n")
        return EXIT_USAGE
    settings.explain_inherited_flags()
    bar = _progress_bar(settings)

    def build(
        *, on_progress: Callable[[LoadProgress], None], on_device_lost: Callable[[str], None]
    ) -> Engine:
        if bar is None:
            return load(on_progress, on_device_lost)

        def draw_too(progress: LoadProgress) -> None:
            on_progress(progress)
            bar.show(progress)

        try:
            return load(draw_too, on_device_lost)
        finally:
            bar.close()

    def load(
        on_progress: Callable[[LoadProgress], None], on_device_lost: Callable[[str], None]
    ) -> Engine:
        # A wrong path or a broken folder is known from its small files, without torch.
        on_progress(LoadProgress(phase="reading headers"))
        describe(settings.base_spec())
        # Importing torch takes seconds, so it happens here, on the loading thread.
        on_progress(LoadProgress(phase="importing torch"))
        with kept_from_collector():
            from worker.engine.build import build_engine  # noqa: PLC0415

        return build_engine(
            settings.base_spec(),
            engine=settings.engine,
            threads=settings.threads,
            max_running=settings.limit_model_concurrency,
            max_waiting=settings.max_queue,
            memory=CacheMemory(
                kv_bytes=settings.kv_cache_memory,
                prefix_bytes=settings.prefix_cache_bytes,
                image_bytes=settings.image_cache_bytes,
                share=settings.memory_share,
            ),
            loras=settings.loras(),
            takes_adapters=settings.allow_runtime_lora,
            packs_weights=settings.pack_weights,
            records_steps=settings.cuda_graphs,
            on_progress=on_progress,
            on_device_lost=on_device_lost,
        )

    def stop() -> None:
        server.should_exit = True

    name, token = settings.base_spec().served_name, settings.fleet_token
    worker = Worker(
        ModelCard(name=name, quantisation=settings.quantisation),
        build,
        memberships=memberships,
        worker_id="worker-" + uuid.uuid4().hex,
        heartbeat_seconds=settings.heartbeat_seconds,
        fleet_token=token.get_secret_value() if token else None,
        body_limits=BodyLimits(settings.max_body_bytes, settings.body_seconds),
        image_policy=settings.image_policy(),
        adapter_root=settings.adapter_root(),
        grace_seconds=settings.grace_seconds,
        tls=client_context(settings.tls_ca),
        on_failure=stop,
    )
    server = Server(
        worker.app,
        grace_seconds=settings.grace_seconds + AFTER_GRACE_SECONDS,
        before_shutdown=worker.leave,
        settings=settings,
    )
    _warn_of_strangers(settings)
    sock.listen()  # whoever reads the line can connect, and is answered once the server runs
    _log.info("worker of %s listens on %s://%s:%d", name, settings.scheme, settings.host, port)
    serve(server, sock)
    code = EXIT_FAILED if worker.lifecycle.state is WorkerState.FAILED else 0
    # All is closed. The interpreter would wait for a thread that may be loading, and take seconds
    # to give back what the system takes back at once.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _warn_of_strangers(settings: WorkerSettings) -> None:
    """Not refused, as the controller would: LLaVA's published command lines listen everywhere."""
    if is_loopback(settings.host) or settings.allow_anonymous_network_access:
        return
    _log.warning(
        "this worker asks for no key: whoever reaches %s can send requests past the controller and "
        "its keys. --host 127.0.0.1 is enough for a controller on this machine; for others, let "
        "controllers alone reach the port, and say --allow-anonymous-network-access",
        settings.host,
    )


def _progress_bar(settings: WorkerSettings) -> ProgressBar | None:
    """For people: not where lines are JSON, and not into a file or a pipe."""
    if settings.log_format == "json" or not sys.stderr.isatty():
        return None
    bar = ProgressBar(sys.stderr, settings.load_spec().served_name)
    bar.make_room_for_logs(logging.getLogger())
    return bar


def _memberships(settings: WorkerSettings, port: int) -> list[Membership]:
    return [
        Membership(
            controller,
            address_for(
                controller,
                given=settings.worker_address,
                host=settings.host,
                port=port,
                scheme=settings.scheme,
            ),
        )
        for controller in settings.controller_address
    ]


if __name__ == "__main__":
    sys.exit(main())
