"""How mail addresses are shown in log lines and events (LogAddresses).

full     as they are
domain   @example.org: without the local part
keyed    0C5KXE0VT2R9M@example.org: a pseudonym in place of the local part, the same for the same address until the key
         changes; who has the key can find it for an address (`pseudonyms`)
none     (hidden)

In the last three forms the texts of servers and filters are searched, too: everything that looks like an address is
shown in the same form, and words that are local parts of the transaction's addresses are removed. A Message-ID is shown
as an address.

One object for each process, as for logging: `use` sets it, `current` gives it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.telemetry.quoting import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

HIDDEN: Final = "(hidden)"

# A quoted local part, or what servers print without quotes; then a domain or an address literal.
_ADDRESS = re.compile(r"""(?:"(?:[^"\\]|\\.){0,320}"|[^\s<>()\[\]:;,"@=]{1,320})@(?:\[[^\]\s]{0,80}\]|[\w.-]{1,255})""")
_PATH = re.compile(r"(?i)((?:FROM|TO):\s*<)([^>]*)(>?)")


class Addresses:
    """The form for one process. `shown` converts one address (without brackets, not empty); None: full."""

    def __init__(self, shown: Callable[[str], str] | None = None) -> None:
        self._shown = shown

    @property
    def full(self) -> bool:
        """Whether addresses are shown as they are."""
        return self._shown is None

    def address(self, data: bytes) -> str:
        """An address of an envelope, or a Message-ID, as printable text. The null reverse-path stays empty."""
        text = printable(data)
        if self._shown is None or not text:
            return text
        return f"<{self._shown(text[1:-1])}>" if text[:1] == "<" and text[-1:] == ">" else self._shown(text)

    def words(self, text: str, known: Iterable[bytes] = ()) -> str:
        """What a server, filter or client said; `known`: addresses of the transaction."""
        if self._shown is None:
            return text
        shown = self._shown
        text = _ADDRESS.sub(lambda found: shown(found[0]), text)
        text = _PATH.sub(lambda found: found[1] + (self._path(found[2])) + found[3], text)
        for address in known:
            local = printable(address).rpartition("@")[0] or printable(address)
            if local:
                text = re.sub(rf"(?<![\w]){re.escape(local)}(?![\w@])", HIDDEN, text, flags=re.IGNORECASE)
        return text

    def _path(self, path: str) -> str:
        """A path without @: an address without domain, such as postmaster."""
        return path if not path or "@" in path or path == HIDDEN or self._shown is None else self._shown(path)


def domain(address: str) -> str:
    """LogAddresses domain."""
    _, at, host = address.rpartition("@")
    return f"@{host.lower()}" if at else HIDDEN


def none(_address: str) -> str:
    """LogAddresses none."""
    return HIDDEN


_current = Addresses()


def use(addresses: Addresses) -> None:
    """From now on this process shows addresses in this form."""
    global _current  # noqa: PLW0603  (as logging: one for each process)
    _current = addresses


def current() -> Addresses:
    """The form that this process uses."""
    return _current
