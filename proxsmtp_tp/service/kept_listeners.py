"""The listening sockets that the service manager keeps over a restart (`readiness.Notifier.store`).

Clients that connect between two daemons wait in the queues of these sockets, and the next daemon accepts them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from proxsmtp_tp.net.listening import Endpoint, Listeners
    from proxsmtp_tp.service.readiness import Notifier


class KeptListeners:
    """One object in the master."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._kept: dict[str, int] = {}

    @property
    def possible(self) -> bool:
        """Whether there is a service manager, which may keep them."""
        return self._notifier.managed

    def keep(self, listeners: Listeners) -> None:
        """Let the manager keep these sockets, and no others. Call it before an unused socket is closed."""
        wanted = {store_name(endpoint): sock.fileno() for endpoint, sock in listeners.items()}
        for name in [name for name, number in self._kept.items() if wanted.get(name) != number]:
            self._notifier.remove(name)
            del self._kept[name]
        for name, number in wanted.items():
            if name not in self._kept:
                self._notifier.store(name, number)  # one that the manager has already is not kept twice
                self._kept[name] = number


def store_name(endpoint: Endpoint) -> str:
    """The name of a socket, as sd_pid_notify_with_fds(3) wants it: printable ASCII without colons, 255 at most."""
    return quote(str(endpoint), safe="/[]")[:255]
