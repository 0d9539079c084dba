"""``python -m controller``: runs a controller until it is told to stop."""

from __future__ import annotations

import gc
import logging
import resource
import sys

from controller.app import create_app
from controller.chassis.auth import KeyFileError
from controller.chassis.logs import configure_logging
from controller.chassis.serve import ListenError, Server, listen, serve
from controller.chassis.settings import SettingsError
from controller.settings import ENV_PREFIX, ControllerSettings
from controller.tracing import TracingError

_log = logging.getLogger("controller")

# Once open answers had their time, what is left of the connections is idle.
IDLE_GRACE_SECONDS = 1
USAGE_ERROR = 2
# Objects between two collections of the youngest; Python's 700 are those of a few requests.
COLLECT_AFTER = 5_000


def main() -> int:
    """Runs a controller; returns the process's exit status."""
    try:
        settings = ControllerSettings.parse(program="python -m controller", env_prefix=ENV_PREFIX)
    except SettingsError as exc:
        sys.stderr.write(f"controller: {exc}\n")
        return USAGE_ERROR
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    try:
        app = create_app(settings)
        sock = listen(settings.host, settings.port)
    except (KeyFileError, ListenError, TracingError) as exc:
        sys.stderr.write(f"controller: {exc}\n")
        return 1
    _raise_descriptor_limit()
    sock.listen()  # whoever reads the line can connect, and is answered once the server runs
    _log.info(
        "controller listens on %s://%s:%d (dispatch: %s)",
        settings.scheme,
        settings.host,
        sock.getsockname()[1],
        settings.dispatch_method.value,
    )
    server = Server(
        app, grace_seconds=IDLE_GRACE_SECONDS, before_shutdown=app.drain, settings=settings
    )
    # What is there now stays; what requests leave behind is nearly all gone without a collection.
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    serve(server, sock)
    return 0


def _raise_descriptor_limit() -> None:
    """Takes all the file descriptors that the system grants: each stream needs two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError) as exc:  # an "unlimited" that the system then refuses
        _log.debug("the limit of file descriptors stays as it is: %s", exc)


if __name__ == "__main__":
    raise SystemExit(main())
