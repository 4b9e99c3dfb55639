"""What a milter is told of connection and message: the macros, and the name of the client.

Names are not looked up, so a client's name is its address in brackets, as Postfix shows a client without one.
"""

from __future__ import annotations

import functools
import re
import time
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.protocols.milter_message import MilterMessage
from proxsmtp_tp.smtp.envelope import Envelope
from proxsmtp_tp.telemetry import dates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxsmtp_tp.filters.interface import FilterRequest
    from proxsmtp_tp.filters.mail import Mail
    from proxsmtp_tp.filters.protocols.milter_message import ShownMacros


def message_for(
    mail: Mail | None,
    request: FilterRequest | None,
    hostname: str,
    own: Sequence[tuple[str, str]] = (),
    before: ShownMacros | None = None,
) -> MilterMessage:
    """What is shown of a message; without one, only for a negotiation. `own`: MilterMacro. `before`: the macros of
    the message before, of the same client on the same connection: they are used again, unless the date has changed.

    Raises HeaderTooLargeError and OSError.
    """
    if mail is None or request is None:
        return MilterMessage("", 0, b"localhost", b"", Envelope(b""), ())
    client = request.client_address
    name = f"[{client}]".encode() if client else b"localhost"
    fields = [field.shown for field in mail.header.fields]
    if before is not None and before[0].get(b"b") == _date(int(time.time())):
        return MilterMessage(client, request.client_port, name, request.helo, request.envelope, fields, *before)
    macros = _macros(request, hostname.encode())
    macros.update((name.encode(), _filled(value, request)) for name, value in own)
    return MilterMessage(client, request.client_port, name, request.helo, request.envelope, fields, macros)


def _filled(value: str, request: FilterRequest) -> bytes:
    """A value of MilterMacro, with its placeholders."""
    known = {"i": request.client, "l": request.local, "s": request.server, "%": "%"}
    return re.sub(r"%([ils%])", lambda found: known[found[1]], value).encode()


@functools.lru_cache(1)
def _date(now: int) -> bytes:
    return dates.date(now).encode()


def _macros(request: FilterRequest, hostname: bytes) -> dict[bytes, bytes]:
    """Macros that have a value (sendmail's cf/README; Postfix' MILTER_README)."""
    client, server = request.client_address.encode(), request.server_address.encode()
    tls = request.tls.client
    known = {
        b"j": hostname,
        b"{daemon_name}": hostname,
        b"v": b"proxsmtp-tp",
        b"b": _date(int(time.time())),
        b"r": b"ESMTP",
        b"s": request.helo,
        b"i": request.trace_id.encode(),
        b"_": b"unknown [%s]" % client if client else b"localhost",
        b"{client_addr}": client,
        b"{client_name}": b"unknown",
        b"{client_ptr}": b"unknown",
        b"{client_resolve}": b"FAIL",
        b"{client_port}": b"%d" % request.client_port if request.client_port else b"",
        b"{daemon_addr}": server,
        b"{if_addr}": server,
        b"{daemon_port}": b"%d" % request.server_port if request.server_port else b"",
        b"{tls_version}": tls.version.encode() if tls else b"",
        b"{cipher}": tls.cipher.encode() if tls else b"",
        b"{auth_type}": (request.login.mechanism or b"unknown") if request.authenticated else b"",
        b"{auth_authen}": request.login.name if request.authenticated else b"",
    }
    return {name: value for name, value in known.items() if value}
