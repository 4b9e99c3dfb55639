"""Locks in the master: workers ask for them, administrators make and remove them, a file keeps them over restarts.

Only the master writes locks, so that two workers cannot lock a client twice, and each lock runs LockCommand once. A
lock is in force when it is in the table of clients (`net.client_table`), where every worker sees it. The file is
written at most once a second, and before an administrator's change is answered.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from proxsmtp_tp.config.rates import ClientLimit, show_time
from proxsmtp_tp.filters.hook import Hook
from proxsmtp_tp.net.client_limits import Keys, key_of, name_of
from proxsmtp_tp.net.client_table import Word
from proxsmtp_tp.net.limit_decision import ADMINISTRATOR, configured, reason_name, reason_number, show_until
from proxsmtp_tp.service.lock_book import Lock, LockBook
from proxsmtp_tp.service.lock_events import LockEvents
from proxsmtp_tp.service.logging import NOTICE
from proxsmtp_tp.service.state_directory import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from ipaddress import IPv4Network, IPv6Network
    from pathlib import Path

    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.net.client_table import ClientTable, LockRequest

log = logging.getLogger(__name__)

FILE = "locks.json"
_WRITE_INTERVAL = 1.0
"""Seconds between two writes of the file, at least: many locks must not make the master wait for the disk."""
_RETRY_INTERVAL = 60.0
"""Seconds after which a write that failed is tried again, with one line in the log."""
_FILE_MAX = 1 << 28
_MAPPED = bytes(10) + b"\xff\xff"


class Locks:
    """One in the master. `path` is the file; it is read once, at the start."""

    def __init__(
        self, settings: Settings, table: ClientTable, path: Path, lost: Callable[[], None] = lambda: None
    ) -> None:
        """`lost` counts an event that nobody gets."""
        self.table = table
        self._events = LockEvents(settings, lost)
        self._path = path
        self._book = LockBook(table.size)
        self._hook = Hook("LockCommand", settings.lock_command)
        self._changed = False
        self._begun: Counter[str] = Counter()
        """Locks since the start of the daemon, by reason."""
        self._write_at = 0.0
        self._next_end = float("inf")
        self._use(settings)
        self._read()
        self._apply_all()

    # The master's loop.

    def due(self) -> float:
        """When `step` must be called next, on the monotonic clock."""
        soon = self._write_at if self._changed else float("inf")
        return min(soon, self._hook.due(), time.monotonic() + self._next_end - time.time())

    def step(self) -> None:
        """Handle the requests of workers, and what is due."""
        self._events.look()
        for request in self.table.requests():
            self._requested(request)
        if time.time() >= self._next_end:
            self._set_number("time")
        if self._changed and time.monotonic() >= self._write_at:
            self._write()
        self._hook.step()

    def reaped(self, pid: int, status: int) -> bool:
        """A child of the master has ended. False: it is not ours."""
        return self._hook.reaped(pid, status)

    def configure(self, settings: Settings) -> None:
        """A new configuration is in force."""
        self._hook.command = settings.lock_command
        self._events.configure(settings)
        for lock in self._book.active(time.time()):
            self._put(lock.network, 0, 0)
        self._use(settings)
        self._apply_all()

    def close(self) -> None:
        """The daemon ends."""
        if self._changed:
            self._write()
        self._hook.close()
        self._events.close()

    # What administrators do. ValueError: it cannot be done; the text says why.

    def active(self) -> list[Lock]:
        """Locks that are in force, the one that ends first at the front."""
        return self._book.active(time.time())

    def report(self) -> dict[str, dict[str, int]]:
        """For status and metrics, by reason (`rejects` .., `administrator`): locks in force, and all since start."""
        active = Counter(lock.reason for lock in self.active())
        reasons = {limit.value: limit.name.lower() for limit in ClientLimit} | {
            reason_name(ADMINISTRATOR): "administrator"
        }
        return {
            "active": {name: active[reason] for reason, name in reasons.items()},
            "total": {name: self._begun[reason] for reason, name in reasons.items()},
        }

    def of(self, client: str) -> Lock | None:
        """The lock of a client that is in force."""
        return self._book.of(self.network(client), time.time())

    def network(self, client: str) -> IPv4Network | IPv6Network:
        """The client that an address belongs to. Raises ValueError."""
        try:
            network = self._keys.network(client.partition("/")[0])
        except ValueError:
            raise ValueError(f"{client!r} is no IP address") from None
        if network is None:
            raise ValueError(f"{client} has no limits and no locks: it is in ClientExcept, or this host itself")
        if "/" in client and client != str(network):
            raise ValueError(f"{client} is not one client: {name_of(network)} is (ClientIPv4Prefix, ClientIPv6Prefix)")
        return network

    def add(self, client: str, seconds: int | None, text: str) -> tuple[Lock, str]:
        """Lock a client; `seconds` None: LockDuration. Returns the lock, and the problem with the file ("": none)."""
        network, now = self.network(client), time.time()
        repeated = self._book.repeated(network, now)
        until = int(now) + (seconds if seconds is not None else self.settings.lock_duration.seconds(repeated))
        lock = Lock(str(network), int(now), until, reason_name(ADMINISTRATOR), text, repeated)
        if not self._put(network, until, ADMINISTRATOR):
            raise ValueError(f"no space for {name_of(network)} in the table of clients: raise ClientTableSize")
        self._book.add(lock, now)
        self._set_number()
        self._begins(lock, "")
        self._run_hook(lock, "")
        return lock, self._write()

    def remove(self, client: str) -> tuple[Lock | None, str]:
        """Unlock a client. Returns the lock (None: there was none), and the problem with the file ("": none)."""
        network = self.network(client)
        lock = self._book.remove(network, time.time())
        self._put(network, 0, 0)
        self._set_number("administrator")
        return lock, self._write()

    def forget_repetition(self, client: str) -> str:
        """Let the next lock of a client be its first. Returns the problem with the file ("": none)."""
        self._book.forget_repetition(self.network(client), time.time())
        return self._write()

    # Helpers.

    def _use(self, settings: Settings) -> None:
        self.settings = settings
        self._keys = Keys(settings)
        self._limits: dict[ClientLimit, object] = {**configured(settings)}
        if settings.client_connections is not None:
            self._limits[ClientLimit.CONNECTIONS] = settings.client_connections
        prefixes = {4: settings.client_ipv4_prefix, 6: settings.client_ipv6_prefix}
        for lock in self._book.adapt(prefixes):
            log.warning("client=%s: its lock has ended: it is more than one client now (ClientIPv*Prefix)", lock.client)
            self._changed = True

    def _requested(self, request: LockRequest) -> None:
        mapped = request.key.startswith(_MAPPED)
        address = ip_address(request.key[12:]) if mapped else IPv6Address(request.key)
        network = self._keys.network(str(address))
        limit = next((limit for limit in self.settings.lock_on if reason_number(limit) == request.reason), None)
        if network is None or limit is None:
            return  # the configuration has changed since
        lock = self._book.lock(network, self.settings.lock_duration, limit.value, time.time())
        if lock is None:
            return
        trace = request.trace.rstrip(b"\0").decode("ascii", "replace")
        if not self._put(network, lock.until, request.reason):
            log.warning("client=%s: not locked: no space in the table (ClientTableSize)", name_of(network))
            return
        self._set_number()
        self._changed = True
        self._begins(lock, trace)
        before = f", {lock.repeated} times before" if lock.repeated else ""
        log.log(
            NOTICE,
            "client=%s: locked for %s, until %s: %s %s is reached%s%s",
            name_of(network),
            show_time(lock.until - lock.since),
            show_until(lock.until),
            limit.value,
            self._limits.get(limit, ""),
            before,
            f", session {trace}" if trace else "",
        )
        self._run_hook(lock, trace)

    def _begins(self, lock: Lock, trace: str) -> None:
        self._begun[lock.reason] += 1
        limit = next((limit for limit in ClientLimit if limit.value == lock.reason), None)
        self._events.begun(lock, trace, "" if limit is None else str(self._limits.get(limit, "")))

    def _run_hook(self, lock: Lock, trace: str) -> None:
        limit = next((limit for limit in ClientLimit if limit.value == lock.reason), None)
        self._hook.run(
            {
                "CLIENT": name_of(lock.network),
                "REASON": lock.text or lock.reason,
                "LIMIT": str(self._limits.get(limit, "")) if limit is not None else "",
                "UNTIL": show_until(lock.until),
                "SECONDS": str(lock.until - lock.since),
                "REPEATED": str(lock.repeated),
                "TRACE_ID": trace,
            }
        )

    def _put(self, network: IPv4Network | IPv6Network, until: int, reason: int) -> bool:
        """Write a lock (until 0: none) into the table. False: there is no space."""
        key, table = key_of(network), self.table
        slot = table.find(key)
        with table.changing(key):
            slot = table.add(key) if until else slot
            if slot is not None:
                table.set(slot, Word.LOCK_REASON, reason)
                table.set(slot, Word.LOCKED_UNTIL, until)
        return slot is not None

    def _apply_all(self) -> None:
        reasons = {limit.value: reason_number(limit) for limit in ClientLimit}
        for lock in self._book.active(time.time()):
            if not self._put(lock.network, lock.until, reasons.get(lock.reason, ADMINISTRATOR)):
                log.warning("client=%s: its lock is not in force: no space (ClientTableSize)", lock.client)
        self._set_number("configuration")

    def _set_number(self, why: str = "time") -> None:
        """How many locks there are. `why`: the reason why locks have ended that are missing now."""
        active = self._book.active(time.time())
        self._events.active(active, why)
        self.table.locks = len(active)
        self._next_end = active[0].until if active else float("inf")

    # The file.

    def _read(self) -> None:
        try:
            with self._path.open("rb") as file:
                self._book.read_json(json.loads(file.read(_FILE_MAX)))
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError) as error:
            log.error("%s: cannot be used, so no client is locked: %s", self._path, error)  # noqa: TRY400
            with suppress(OSError):  # kept for the administrator: the next lock writes a new file
                self._path.rename(self._path.with_name(FILE + ".damaged"))
            return
        self._book.forget_old(time.time())
        self._use(self.settings)

    def _write(self) -> str:
        """Write the file. Returns the problem; "": none."""
        self._changed = False
        self._write_at = time.monotonic() + _WRITE_INTERVAL
        self._book.forget_old(time.time())
        try:
            replace_file(self._path, json.dumps(self._book.to_json(), indent=1).encode())
        except OSError as error:
            problem = f"locks are not kept over a restart: {self._path}: {error.strerror or error}"
            log.error("%s", problem)  # noqa: TRY400  (one line)
            self._changed = True
            self._write_at = time.monotonic() + _RETRY_INTERVAL
            return problem
        return ""
