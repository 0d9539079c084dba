"""TLS: what a process shows to those who connect to it, and whom it trusts when it connects."""

from __future__ import annotations

import ssl
from pathlib import Path


def check_certificate(certificate: Path, key: Path | None) -> None:
    """Makes sure that a server could show this certificate.

    Raises:
        ValueError: a file cannot be read, or the key is not the certificate's.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as exc:
        files = f"{certificate} with {key}" if key else f"{certificate}, which has to hold its key"
        raise ValueError(f"the certificate in {files} cannot be used: {exc}") from exc


def client_context(authorities: Path | None) -> ssl.SSLContext:
    """What connections to other processes are checked with.

    Args:
        authorities: PEM file of certificates that are trusted beside the system's.

    Raises:
        ValueError: the file cannot be used.
    """
    context = ssl.create_default_context()
    if authorities is not None:
        try:
            context.load_verify_locations(authorities)
        except (OSError, ssl.SSLError) as exc:
            raise ValueError(f"the certificates in {authorities} cannot be used: {exc}") from exc
    return context
