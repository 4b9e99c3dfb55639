"""TLS from the first octet (RFC 8314 section 3.3, port 465), on the server's ports of TlsWrapped.

Client and server are silent until there is TLS, so the client's hello is the first thing that is read. It decides as
after STARTTLS (`starttls.hello`): pass, terminate or refuse. With terminate the server's greeting comes within its TLS,
perhaps before the client has TLS: it waits until then. In clear nothing is said to either side, not even a refusal.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from proxsmtp_tp.session import effects
from proxsmtp_tp.session.measuring import tls as counter
from proxsmtp_tp.session.state import Phase
from proxsmtp_tp.tls.alerts import Alert
from proxsmtp_tp.tls.policy import TlsAction

if TYPE_CHECKING:
    from proxsmtp_tp.session.dialogue import Dialogue


def expect(d: Dialogue, port: int) -> None:
    """The server is not connected yet, but its port is known."""
    d.tls.wrapped = d.options.tls is not None and port in d.options.tls_wrapped


def applies(d: Dialogue) -> bool:
    """Whether TLS begins with the first octet on this connection. Ask after `starttls.connected`."""
    expect(d, d.tls.port)
    return d.tls.wrapped


def begin(d: Dialogue) -> None:
    """The server is connected: read the client's hello, of which a part may have come already."""
    d.phase = Phase.STARTING_TLS
    d.effects.append(effects.PeekClientHello(d.lines.take()))
    where = f"client={d.client}, server={d.server}"
    certain = d.tls.candidates.certain if d.tls.candidates is not None else None
    if d.client_gone:
        d.log(
            f"{where}: the client left before TLS began: closing",
            logging.WARNING,
            counter("client", "undecided", "left"),
        )
        d.drop_server(abort=True)
        d.end(None)
    elif certain is not None and certain.action in {TlsAction.REFUSE, TlsAction.STRIP}:
        counts = counter("client", "refuse", "address")
        d.log(f"{where}: TLS from the first octet is refused (Tls: {certain.rule})", logging.WARNING, counts)
        d.effects.append(effects.RefuseTls(Alert.ACCESS_DENIED))
        d.end(None)
    elif d.tls.place is not None and (busy := d.tls.place.begin()):
        counts = counter("client", "undecided", "busy")
        d.log(f"client={d.client}: TLS from the first octet is refused for now: {busy}", logging.WARNING, counts)
        d.effects.append(effects.RefuseTls(Alert.INTERNAL_ERROR))  # it may try again (RFC 8446 section 6.2)
        d.end(None)
