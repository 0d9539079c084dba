"""Stands in for a worker or the page: it listens, registers and heeds signals, and has no model.

The supervisor starts it as ``python -m worker`` or ``python -m webui`` with the real flags; what
else it does is said by flags of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from pathlib import Path


class Loading:
    """A load that takes some seconds from when the controller first heard of it.

    Where it has to wait for a file, it goes on until that is there.
    """

    def __init__(self, seconds: float, until: str) -> None:
        self._seconds = seconds
        self._until = until
        self._begun: float | None = None

    def begin(self) -> None:
        self._begun = self._begun or time.monotonic()

    def is_over(self) -> bool:
        if self._begun is None or (self._until and not Path(self._until).exists()):
            return False
        return time.monotonic() - self._begun >= self._seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--controller-address")
    parser.add_argument("--worker-address")
    parser.add_argument("--model-name")
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    parser.add_argument("--say", default="")
    parser.add_argument("--exit-with", type=int, help="exits at once")
    parser.add_argument("--fail-loading", default="", help="stays, and reports that it failed")
    parser.add_argument("--ready-after", type=float, default=0.0, help="seconds")
    parser.add_argument("--ready-once", default="", help="this file is there")
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--grandchild", action="store_true")
    options, _ = parser.parse_known_args()
    if options.say:
        print(options.say, flush=True)
    if options.exit_with is not None:
        sys.exit(options.exit_with)
    if options.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if options.grandchild:
        child = subprocess.Popen(["sleep", "1000"])
        print(f"grandchild {child.pid}", flush=True)

    loading = Loading(options.ready_after, options.ready_once)
    if not options.controller_address:
        loading.begin()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            is_ready = self.path == "/health" or loading.is_over()
            self.send_response(200 if is_ready and not options.fail_loading else 503)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer((options.host, options.port), Handler)
    if options.tls_cert:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options.tls_cert, options.tls_key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    if options.controller_address:
        beat = threading.Thread(target=beat_forever, args=(options, loading), daemon=True)
        beat.start()
    server.serve_forever()


def beat_forever(options: argparse.Namespace, loading: Loading) -> None:
    worker_id = uuid.uuid4().hex
    while True:
        status = {"state": "ready", "models": [{"name": options.model_name}]}
        if options.fail_loading:
            status |= {"state": "failed", "detail": options.fail_loading}
        elif not loading.is_over():
            status |= {"state": "loading", "progress": {"phase": "tower", "fraction": 0.5}}
        body = {
            "worker_id": worker_id,
            "address": options.worker_address,
            "heartbeat_seconds": 0.2,
            "version": "0",
            "status": status,
        }
        request = urllib.request.Request(
            options.controller_address + "/fleet/heartbeat",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with contextlib.suppress(OSError):  # a controller that is down is not ours to care about
            urllib.request.urlopen(request, timeout=2).close()
            loading.begin()
        time.sleep(0.2)


if __name__ == "__main__":
    main()
