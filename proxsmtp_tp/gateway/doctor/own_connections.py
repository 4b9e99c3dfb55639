"""Connections of doctor to the daemon. The daemon is told of each before, so that it neither logs nor counts it.

Where the daemon cannot be told (only root and its user may), its log has these connections like all others.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxsmtp_tp.gateway.doctor.findings import Setup


def connect(setup: Setup, where: tuple[str, int] | str, seconds: float) -> socket.socket:
    """Connect to a host and port, or to a unix socket. `seconds` are its timeout, also later. Raises OSError."""
    if isinstance(where, str):
        link = socket.socket(socket.AF_UNIX)
        setup.announce("pid", os.getpid())
        return _connected(link, where, seconds)
    family, kind, protocol, _, address = socket.getaddrinfo(*where, type=socket.SOCK_STREAM)[0]
    link = socket.socket(family, kind, protocol)
    try:
        link.bind(("", 0))
        setup.announce("port", link.getsockname()[1])
    except OSError:
        link.close()
        raise
    return _connected(link, address, seconds)


def _connected(link: socket.socket, where: object, seconds: float) -> socket.socket:
    try:
        link.settimeout(seconds)
        link.connect(where)  # type: ignore[arg-type]
    except OSError:
        link.close()
        raise
    return link
