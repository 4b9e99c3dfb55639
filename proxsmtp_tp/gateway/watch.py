"""Installs rules again that another program removed or changed, and records it for `status`.

`nft flush ruleset`, a restart of nftables.service, Docker or a script of the administrator remove our rules without
asking. The kernel reports each change of nftables rules and of policy routing (`Changes`); legacy iptables rules and
routes are looked at once a minute (INTERVAL).

The rules are compared with the installed plan (`state`), not with the configuration: `remove-rules` deletes the state,
so nothing is installed again after it. Rules on trial (`install-rules --confirm`) are compared, and not restored.

Sources: netlink(7), linux/netfilter/nfnetlink.h, linux/rtnetlink.h.
"""

from __future__ import annotations

import logging
import select
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from proxsmtp_tp.gateway import check
from proxsmtp_tp.gateway import install as installer
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.state import Phase
from proxsmtp_tp.gateway.watch_record import Record, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.gateway.state import Store

INTERVAL = 60.0
"""Seconds between two comparisons if the kernel reports nothing."""
SETTLE = 0.2
"""Seconds from a report to the comparison: a ruleset is often loaded in several steps."""
PAUSE = 1.0
"""Seconds between two comparisons, at least: other programs (fail2ban) may change rules many times a second."""
_REPORTS_MAX = 10000

_NETLINK_NETFILTER, _SOL_NETLINK, _ADD_MEMBERSHIP = 12, 270, 1
_GROUPS = ((_NETLINK_NETFILTER, (7,)), (0, (8, 19)))
"""NFNLGRP_NFTABLES; NETLINK_ROUTE with RTNLGRP_IPV4_RULE and RTNLGRP_IPV6_RULE."""

log = logging.getLogger(__name__)


class Changes:
    """What the kernel reports. `end` is a descriptor: when it is readable, `wait` and `pause` return False."""

    def __init__(self, end: int) -> None:
        self._end = end
        self._sockets: list[socket.socket] = []
        for protocol, groups in _GROUPS:
            with suppress(OSError):  # a kernel without nf_tables
                sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
                self._sockets.append(sock)
                sock.bind((0, 0))
                for group in groups:
                    sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def wait(self, seconds: float) -> bool:
        """Until the kernel reports a change, at most `seconds`."""
        sources: list[socket.socket | int] = [self._end, *self._sockets]
        ready, _, _ = select.select(sources, [], [], seconds)
        return self._end not in ready and (not ready or self.pause(SETTLE))

    def pause(self, seconds: float) -> bool:
        """Do nothing for this time."""
        return not select.select([self._end], [], [], seconds)[0]

    def forget(self) -> None:
        """Drop what has been reported so far, at most one buffer: the next comparison sees the effect."""
        for sock in self._sockets:
            for _ in range(_REPORTS_MAX):
                try:
                    sock.recv(1 << 16)
                except BlockingIOError:
                    break
                except OSError:  # ENOBUFS: reports were lost; the next one can be read
                    continue

    def close(self) -> None:
        """Close the sockets."""
        for sock in self._sockets:
            sock.close()


class _Look(NamedTuple):
    word: str
    differences: tuple[str, ...]
    restored: bool


class Watch:
    """Watches the rules of one instance. `step` compares, and restores what is missing."""

    def __init__(self, instance: str, store: Store) -> None:
        self._instance = instance
        self._store = store
        self._record = Record("", (), 0.0)
        self._failed = ""

    def step(self) -> None:
        """Compare once, and restore. Errors on the host are logged, not raised; the next step tries again."""
        try:
            look = self._look()
        except (GatewayError, OSError) as error:
            if str(error) != self._failed:
                self._failed = str(error)
                log.error("rules of instance %s: they cannot be put back: %s", self._instance, error)  # noqa: TRY400
            self._write(Record("absent", tuple(str(error).splitlines()), time.time(), self._record.restored))
            return
        self._failed = ""
        restored = time.time() if look.restored else self._record.restored
        if look.restored:
            what = "; ".join(look.differences[:5]) or "all of them"
            log.error("rules of instance %s: another program removed or changed them, they are put back: %s",
                self._instance, what)  # fmt: skip
            look = _Look("in place", (), True)
        elif look.word not in {self._record.state, "in place", "absent"}:
            log.error("rules of instance %s are not in place: %s", self._instance, look.word)
        self._write(Record(look.word, look.differences, time.time(), restored))

    def _look(self) -> _Look:
        with self._store.lock():
            state = self._store.read(self._instance)
            if state is None:
                return _Look("absent", (), False)
            finding = check.examine(state.plan)
            if finding.in_place:
                return _Look("refusing mail" if state.plan.refuse_all else "in place", (), False)
            if state.phase is not Phase.INSTALLED or state.token:
                return _Look(finding.word, finding.differences, False)
            installer.apply(state.plan, state, self._store, None, "")
            return _Look(finding.word, finding.differences, True)

    def _write(self, record: Record) -> None:
        self._record = record
        with suppress(OSError):  # no space: the log has it
            write(self._instance, self._store, record)


def watch(instance: str, store: Store, end: int, ready: Callable[[], None]) -> None:
    """Compare at once, call `ready`, then compare after each change and each minute, until `end` is readable."""
    changes = Changes(end)
    looking = Watch(instance, store)
    try:
        looking.step()
        ready()
        while changes.pause(PAUSE) and changes.wait(INTERVAL):
            changes.forget()
            looking.step()
    finally:
        changes.close()
