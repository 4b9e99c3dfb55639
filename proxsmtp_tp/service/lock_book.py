"""The locks of clients, as values: who is locked until when, and how often before. Pure: no clock, file or table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from ipaddress import IPv4Network, IPv6Network

    from proxsmtp_tp.config.rates import LockDuration

MEMORY = 7 * 86400
"""Seconds after the end of a lock in which the next one counts as a repetition: a host that is infected again within a
week was probably not repaired."""

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Lock:
    """The lock of one client. Times are in seconds since 1970, so they stay valid after a restart."""

    client: str
    """A network: 192.0.2.7/32."""
    since: int
    until: int
    reason: str
    """The directive of the limit, or `administrator`."""
    text: str = ""
    """What the administrator wrote."""
    repeated: int = 0
    """Locks before this one, within MEMORY."""

    @property
    def network(self) -> IPv4Network | IPv6Network:
        return ip_network(self.client)


class LockBook:
    """At most `most` clients: those whose locks ended longest ago are forgotten first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._locks: dict[str, Lock] = {}

    def active(self, now: float) -> list[Lock]:
        """Locks that are in force, the one that ends first at the front."""
        return sorted((lock for lock in self._locks.values() if lock.until > now), key=lambda lock: lock.until)

    def of(self, network: IPv4Network | IPv6Network, now: float) -> Lock | None:
        """The lock of a client that is in force."""
        lock = self._locks.get(str(network))
        return lock if lock is not None and lock.until > now else None

    def repeated(self, network: IPv4Network | IPv6Network, now: float) -> int:
        """How many earlier locks of the client still count."""
        lock = self._locks.get(str(network))
        return lock.repeated + 1 if lock is not None and now < lock.until + MEMORY else 0

    def lock(self, network: IPv4Network | IPv6Network, duration: LockDuration, reason: str, now: float) -> Lock | None:
        """Lock a client that has reached a limit. None: it is locked already."""
        if self.of(network, now) is not None:
            return None
        repeated = self.repeated(network, now)
        return self.add(Lock(str(network), int(now), int(now) + duration.seconds(repeated), reason, "", repeated), now)

    def add(self, lock: Lock, now: float) -> Lock:
        """Put a lock in place of an earlier one of the client."""
        self._locks.pop(lock.client, None)
        self._locks[lock.client] = lock
        if len(self._locks) > self._most:
            self.forget_old(now)
            ended = sorted((lock for lock in self._locks.values() if lock.until <= now), key=lambda lock: lock.until)
            for old in ended[: len(self._locks) - self._most]:
                del self._locks[old.client]
        return lock

    def remove(self, network: IPv4Network | IPv6Network, now: float) -> Lock | None:
        """End a lock, and forget that there were any. None: the client is not locked."""
        lock = self.of(network, now)
        self._locks.pop(str(network), None)
        return lock

    def forget_repetition(self, network: IPv4Network | IPv6Network, now: float) -> None:
        """Forget the repetitions of a client: an active lock becomes its first one; an ended one is forgotten."""
        lock = self.of(network, now)
        self._locks.pop(str(network), None)
        if lock is not None:
            self._locks[lock.client] = replace(lock, repeated=0)

    def forget_old(self, now: float) -> None:
        """Forget locks that no longer count as repetitions."""
        for lock in [lock for lock in self._locks.values() if now >= lock.until + MEMORY]:
            del self._locks[lock.client]

    def adapt(self, prefixes: dict[int, int]) -> list[Lock]:
        """Prefixes of clients (by IP version) have changed: a lock is extended to the client that now contains it.

        A lock that would now be for several clients is dropped. Returns the dropped locks.
        """
        dropped = []
        for lock in list(self._locks.values()):
            network = lock.network
            prefix = prefixes[network.version]
            if prefix == network.prefixlen:
                continue
            del self._locks[lock.client]
            if prefix > network.prefixlen:
                dropped.append(lock)
                continue
            wider = replace(lock, client=str(network.supernet(new_prefix=prefix)))
            other = self._locks.get(wider.client)
            if other is None or other.until < wider.until:
                self._locks[wider.client] = wider
        return dropped

    # In a file.

    def to_json(self) -> dict[str, Any]:
        """All that must be kept."""
        return {"version": _VERSION, "locks": [asdict(lock) for lock in self._locks.values()]}

    def read_json(self, data: object) -> None:
        """What `to_json` gave. Raises ValueError for anything else; then nothing is changed."""
        if not isinstance(data, dict) or data.get("version") != _VERSION:
            raise ValueError(f"not a list of locks of version {_VERSION}")
        locks = list(_locks(data.get("locks")))
        self._locks = {lock.client: lock for lock in locks}


def _locks(rows: Iterable[Any] | None) -> Iterator[Lock]:
    if not isinstance(rows, list):
        raise ValueError("no list of locks")  # noqa: TRY004  (it is data, not a program, that is wrong)
    for row in rows:
        try:
            lock = Lock(**row)
            numbers = (lock.since, lock.until, lock.repeated)
            texts = (lock.client, lock.reason, lock.text)
            fits = lock.client == str(lock.network) and all(type(text) is str for text in texts)
            fits = fits and all(type(number) is int and number >= 0 for number in numbers)
        except (TypeError, ValueError) as error:
            raise ValueError(f"no lock: {row!r}: {error}") from None
        if not fits:
            raise ValueError(f"no lock: {row!r}")
        yield lock
