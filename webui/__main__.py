"""``python -m webui``: serves the page."""

from __future__ import annotations

import sys

from controller.chassis.collecting import kept_from_collector
from controller.chassis.logs import configure_logging
from controller.chassis.serve import ListenError, Server, listen, serve
from controller.chassis.settings import SettingsError
from webui.settings import ENV_PREFIX, WebSettings

# Open pages hold a connection for ever; a stop need not wait for them.
_GRACE_SECONDS = 2


def main() -> int:
    """Serves until SIGINT or SIGTERM. Returns the exit status: 2 for a wrong setting."""
    try:
        settings = WebSettings.parse(program="python -m webui", env_prefix=ENV_PREFIX)
    except SettingsError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 2
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    try:
        sock = listen(settings.host, settings.port)
    except ListenError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 2
    try:
        # Imported late: a wrong flag or a taken port should not wait for Gradio.
        with kept_from_collector():
            from webui.app import WebApp  # noqa: PLC0415
            from webui.gallery import GalleryError  # noqa: PLC0415
            from webui.login import LoginError  # noqa: PLC0415
            from webui.moderation import ModerationError  # noqa: PLC0415
            from webui.share import share  # noqa: PLC0415
            from webui.store import StoreError  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        sys.stderr.write(
            f"error: the page needs the package {exc.name}: pip install 'paragone[webui]'\n"
        )
        return 2
    try:
        app = WebApp(settings)
    except (GalleryError, LoginError, ModerationError, StoreError) as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 2

    if settings.share:
        host, port = sock.getsockname()[:2]
        share(host, port, has_login=settings.gradio_auth_path is not None)
    serving = settings
    if settings.auth_header is not None:
        # The login has to see who connects; what the proxy says of its client comes after it.
        serving = settings.model_copy(update={"trusted_proxies": ()})
    serve(
        Server(
            app.asgi,
            grace_seconds=_GRACE_SECONDS,
            before_shutdown=app.end_streams,
            settings=serving,
        ),
        sock,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
