"""Which certificates a fleet's processes show, and how the supervisor believes them."""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Mapping, Sequence

# Flags may be abbreviated: --tls-ce is no other's beginning.
_FLAG = re.compile(r"--tls-ce(?:r|rt)?(?:=(?P<file>.*))?")


def certificate_of(package: str, args: Sequence[str], env: Mapping[str, str]) -> str | None:
    """The file of the certificate that a process will show; None where it speaks plain HTTP.

    Args:
        package: what ``python -m`` runs.
        args: its flags.
        env: its variables; flags win.
    """
    found = env.get(f"PARAGONE_{package.upper()}_TLS_CERT")
    for word, following in zip(args, (*args[1:], None), strict=False):
        if match := _FLAG.fullmatch(word):
            found = following if match["file"] is None else match["file"]
    return found


class Believed(ssl.SSLContext):
    """Believes the certificates of the fleet's own processes, whoever signed them, and no other.

    The supervisor knows which file each process shows, so that neither authorities nor the names
    in a certificate have to fit 127.0.0.1 for it.
    """

    def __new__(cls) -> Believed:
        """A context that believes nobody yet."""
        context = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the file may be signed by another
        return context

    def add(self, certificate: str | None) -> None:
        """Believes this one too. A file that is none is the process's to complain of."""
        if certificate is not None:
            with contextlib.suppress(OSError, ssl.SSLError):
                self.load_verify_locations(certificate)
