"""Tries servers that could not be reached until they can be reached again; until then the rules refuse their clients.

Without these tries the rules forget such a server after seconds. A client that comes back minutes later would be
accepted again before its server is known to be down. sendmail then tries no other address of the name, and would never
deliver; nor would a program that sends one message an hour.

A try is a TCP connection that is closed as soon as it is established. It comes from the address that a client's
upstream connection would have. It is in the table of upstream connections, so a loop is recognised.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from proxsmtp_tp.net import dialling
from proxsmtp_tp.net.original_destination import Endpoint, endpoint
from proxsmtp_tp.net.refusals import AGAIN
from proxsmtp_tp.net.source_port import Source

if TYPE_CHECKING:
    import socket

    from proxsmtp_tp.net.admission import Admission
    from proxsmtp_tp.net.refusals import Refusals

log = logging.getLogger(__name__)

SERVERS = 1000
"""Servers that one worker watches: at most 17 SYN a second, as each is tried once a minute. Further servers are not
tried, and their clients are accepted again after ten seconds."""
LONGEST = 4 * 3600.0
"""Seconds after which a server is no longer tried: queue runs are rarely more than an hour apart."""
SHARE = 0.1
"""The pause before the next try, as a share of the time since the server failed: refusing lasts at most that much
longer."""
SOONEST, LATEST = 5.0, 60.0
"""The shortest and the longest pause, in seconds: the first spares a server that starts, the second ends a long failure
soon."""


class Watch:
    """The servers that one worker watches. Made inside its event loop."""

    def __init__(self, refusals: Refusals, admission: Admission, worker: int, connect_time_out: float) -> None:
        self._refusals = refusals
        self._admission = admission
        self._worker = worker
        self._time_out = connect_time_out
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[tuple[Endpoint, str | None], asyncio.Task[None]] = {}
        self._closed = False

    def failed(self, server: Endpoint, client_ip: str | None) -> None:
        """Make the rules refuse its clients, and watch it; with `client_ip`, for that client address only."""
        self._refusals.ask(server, client_ip)
        key = (server, client_ip)
        if self._refusals.enabled and not self._closed and key not in self._tasks and len(self._tasks) < SERVERS:
            self._tasks[key] = task = self._loop.create_task(self._watch(*key), name=f"watch {server}")
            task.add_done_callback(lambda done: self._tasks.pop(key) if self._tasks.get(key) is done else None)

    def reached(self, server: Endpoint, client_ip: str | None) -> None:
        """A client's connection reached it: stop watching it."""
        task = self._tasks.pop((server, client_ip), None)
        if task is not None:
            task.cancel()

    def close(self) -> None:
        """Stop watching all servers."""
        self._closed = True
        for task in self._tasks.values():
            task.cancel()

    async def _watch(self, server: Endpoint, client_ip: str | None) -> None:
        began = self._loop.time()
        log.info("%s can not be reached: clients are refused until it can", server)
        with self._refusals.while_silent(self._loop, server, client_ip, AGAIN):
            while (away := self._loop.time() - began) < LONGEST:
                await asyncio.sleep(min(max(away * SHARE, SOONEST), LATEST))
                if await self._answers(server, client_ip):
                    log.info("%s can be reached again, after %.0f s", server, self._loop.time() - began)
                    return
        log.info("%s can not be reached for %.0f s: it is no longer tried", server, LONGEST)

    async def _answers(self, server: Endpoint, client_ip: str | None) -> bool:
        handles: list[int] = []

        def remember(sock: socket.socket, _target: Endpoint | str) -> None:
            handles.append(self._admission.add_upstream(self._worker, endpoint(sock.getsockname()), server))

        source = Source(client_ip, self._admission.is_client) if client_ip is not None else None
        try:
            sock, _ = await dialling.dial([server], source=source, time_out=self._time_out, started=remember)
        except dialling.DialError:
            return False  # also for a fault of this host: it says nothing about the server
        else:
            sock.close()
            return True
        finally:
            for handle in handles:
                self._admission.forget(self._worker, handle)
