"""A proxy that keeps every byte that a server sent."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit


class Wiretap:
    """What came through so far."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 80)
        self._lock = threading.Lock()
        self._heard = bytearray()

    def heard(self) -> str:
        """All that the server has sent, as text."""
        with self._lock:
            return self._heard.decode("utf-8", "replace")

    def serve(self, listener: socket.socket) -> None:
        """Takes connections until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            back = threading.Thread(target=self._pump, args=(server, client, True), daemon=True)
            back.start()
            self._pump(client, server, False)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket, is_heard: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                if is_heard:
                    with self._lock:
                        self._heard += piece
                sink.sendall(piece)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def wiretap(target: str) -> Iterator[tuple[str, Wiretap]]:
    """An address that leads to the target, and what is heard on the way."""
    tap = Wiretap(target)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=tap.serve, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", tap
        listener.shutdown(socket.SHUT_RDWR)
