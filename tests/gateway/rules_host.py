"""The gateway of the tests of rules: installs and removes them, starts and kills daemons, takes snapshots."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.gateway import check, install, survey
from proxsmtp_tp.gateway.plan import HEARTBEAT_HOLD, Method, Mode, Options
from proxsmtp_tp.gateway.state import Store
from tests.gateway.network import (
    Listener,
    Network,
    diverted_greeting,
    inside,
    redirected_greeting,
    relay_greeting,
    server_greeting,
    snapshot,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from proxsmtp_tp.gateway.check import Finding
    from proxsmtp_tp.gateway.install import Outcome

PORT = 10025
METHODS = [Method.NFTABLES, Method.IPTABLES]
MODES = [Mode.REDIRECT, Mode.TPROXY]


SOON = HEARTBEAT_HOLD + 50.0
"""Seconds within which mail must pass: until the heartbeat expires, and more for a busy machine."""


def options(**changes: Any) -> Options:
    """Options for the gateway of `Network`."""
    given: dict[str, Any] = {"instance": "test", "interfaces": ("lan0",), "listen_port": PORT} | changes
    return Options(**given)


class RulesHost:
    """One gateway, without the real daemon."""

    def __init__(self, net: Network, state: Path) -> None:
        self.net, self.state = net, state
        self._open: list[Listener] = []

    def store(self) -> Store:
        """A store; to be made inside the gateway."""
        return Store(self.state)

    def install(self, **changes: Any) -> Outcome:
        """install-rules."""
        return inside(self.net.gateway, lambda: install.install(options(**changes), self.store()))

    def install_or_refuse_mail(self, **changes: Any) -> Outcome:
        """install-rules --or-refuse-mail, as the unit calls it."""
        return inside(self.net.gateway, lambda: install.install(options(**changes), self.store(), or_refuse_mail=True))

    def remove(self, instance: str = "test") -> Outcome:
        """remove-rules."""
        return inside(self.net.gateway, lambda: install.remove(instance, self.store()))

    def check(self, **changes: Any) -> Finding:
        """check-rules."""

        def look() -> Finding:
            plan, _ = survey.choose_plan(options(**changes), self.store().read_all())
            return check.examine(plan)

        return inside(self.net.gateway, look)

    def snapshot(self) -> dict[str, str]:
        """The gateway as it is."""
        return snapshot(self.net.gateway)

    def server(self, port: int = 25) -> Listener:
        """A mail server behind the gateway, which says whom it saw."""
        return self._keep(Listener(self.net.server, port, server_greeting))

    def daemon(self, mode: Mode, **changes: Any) -> Listener:
        """A daemon on the gateway, which says where the client was going."""
        greet = redirected_greeting if mode is Mode.REDIRECT else diverted_greeting
        changes.setdefault("transparent", mode is Mode.TPROXY)
        return self._keep(Listener(self.net.gateway, changes.pop("port", PORT), greet, **changes))

    def relay(self, mode: Mode, *, full: bool) -> Listener:
        """A daemon that connects to the server, from its own or from the client's address."""
        greet = relay_greeting(self.net.gateway, full=full, diverted=mode is Mode.TPROXY)
        return self._keep(Listener(self.net.gateway, PORT, greet, transparent=full or mode is Mode.TPROXY))

    def _keep(self, listener: Listener) -> Listener:
        self._open.append(listener)
        return listener

    def close(self) -> None:
        """End every listener."""
        for listener in self._open:
            listener.close()


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Ask until it holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False
