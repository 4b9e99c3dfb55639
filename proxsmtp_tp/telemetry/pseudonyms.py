"""Pseudonyms of addresses, with keys that change each day (LogAddresses keyed).

A pseudonym is the first 64 bits of HMAC-SHA256 (RFC 2104) over the address in lower case, as 13 characters of base32.
The domain is kept. Without the key nobody can find out the address by trying addresses; unkeyed hashes can be guessed.

The key file has a line `YYYY-MM-DD HEX` for each day (UTC), 32 random octets each, and mode 0600. The first process
that needs the key of a new day writes it, under a lock; all workers read the same. At the same time keys older than
KEPT_DAYS are removed: after that nobody can find the address of a pseudonym.
"""

from __future__ import annotations

import fcntl
import hmac
import logging
import os
import secrets
import time
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

KEPT_DAYS = 8
"""Today, and one week: complaints about a mail come within a week."""
KEY_SIZE = 32
"""Octets: as long as the output of SHA-256 (RFC 2104 section 3)."""

_DAY = 86400
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Pseudonyms:
    """Of one process. `clock` gives POSIX time in seconds."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._day = -1
        self._key = b""

    def shown(self, address: str) -> str:
        """An address with a pseudonym in place of its local part."""
        day = int(self._clock()) // _DAY
        if day != self._day:
            self._key, self._day = self._key_of(day), day
        return pseudonym(self._key, address)

    def _key_of(self, day: int) -> bytes:
        today = datetime.fromtimestamp(day * _DAY, UTC).date()
        try:
            return _shared_key(self._path, today)
        except OSError as error:
            # Without the file: this process alone knows the key, and nobody can look a pseudonym up.
            log.error("%s: %s: pseudonyms of this process cannot be looked up", self._path, error.strerror or error)  # noqa: TRY400
            return secrets.token_bytes(KEY_SIZE)


def pseudonym(key: bytes, address: str) -> str:
    """13 characters, and the domain of the address."""
    _, at, host = address.rpartition("@")
    digest = int.from_bytes(hmac.digest(key, address.lower().encode("utf-8", "surrogateescape"), "sha256")[:8])
    text = "".join(_ALPHABET[digest >> shift & 31] for shift in range(60, -1, -5))
    return text + at + host.lower()


def read_keys(path: Path) -> dict[date, bytes]:
    """The keys in the file, by day; none if there is no file. Raises OSError. Lines that are no keys are ignored."""
    try:
        text = path.read_text("ascii", "replace")
    except FileNotFoundError:
        return {}
    keys = {}
    for line in text.splitlines():
        day, _, key = line.partition(" ")
        try:
            keys[date.fromisoformat(day)] = bytes.fromhex(key)
        except ValueError:
            continue
    return {day: key for day, key in keys.items() if len(key) == KEY_SIZE}


def _shared_key(path: Path, today: date) -> bytes:
    """The key of today, written if there is none. Raises OSError."""
    if (key := read_keys(path).get(today)) is not None:
        return key
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.open(path.with_name(path.name + ".lock"), flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = read_keys(path)
        if today not in keys:
            keys[today] = secrets.token_bytes(KEY_SIZE)
            _write(path, {day: key for day, key in keys.items() if abs(today - day) < timedelta(days=KEPT_DAYS)})
        return keys[today]
    finally:
        os.close(lock)


def _write(path: Path, keys: dict[date, bytes]) -> None:
    temporary = path.with_name(path.name + ".new")
    text = "".join(f"{day} {key.hex()}\n" for day, key in sorted(keys.items()))
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    try:
        os.write(descriptor, text.encode())  # some hundred octets: whole, or an error
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(path)
