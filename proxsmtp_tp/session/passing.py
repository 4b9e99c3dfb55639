"""The client's TLS with the server is passed on, and nothing is judged."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from proxsmtp_tp.session import effects
from proxsmtp_tp.session.measuring import tls as counter
from proxsmtp_tp.session.state import Phase

if TYPE_CHECKING:
    from proxsmtp_tp.session import events
    from proxsmtp_tp.session.dialogue import Dialogue


def begin(d: Dialogue) -> None:
    """From now on. `d.tls.rule` says why."""
    d.phase = Phase.PASSING
    d.tls.passed = True
    d.tls.give_place_back()
    d.effects.append(effects.PassTls())


def name(d: Dialogue) -> str:
    """The server name, for the log. The client chooses it; it is in any case a valid host name (`ClientHello`)."""
    return d.tls.name or "-"


def peer_lost(d: Dialogue, _event: events.ClientClosed | events.ServerClosed) -> None:
    """The driver tells the end of a passed connection by PassingEnded, before its transports are gone."""
    _end(d)


def ended(d: Dialogue, event: events.PassingEnded) -> None:
    """PassingEnded: the one log line of a passed connection, also of one that a deadline or Shutdown has ended."""
    if not d.tls.passed:
        return
    d.tls.passed = False
    where = f"client={d.client}, server={d.server}"
    octets = f"from_client={event.from_client}, from_server={event.from_server}, sni={name(d)}"
    passed, not_tls = counter("both", "pass", "passed"), counter("both", "pass", "not_tls")
    d.log(f"{where}: TLS passed on, not judged (Tls: {d.tls.rule}): {octets}", logging.INFO, passed)
    if event.reason and d.phase is Phase.PASSING:
        d.log(f"{where}: the passed connection is reset: {event.reason}", logging.WARNING, not_tls)
    if d.phase is Phase.PASSING:
        _end(d, reset=bool(event.reason))


def _end(d: Dialogue, *, reset: bool = False) -> None:
    d.drop_server(abort=reset)
    d.end(None, reset=reset)
