"""What an exchange of AUTH shows of a login: the SASL mechanism, and the name where that is sent in clear.

Guarantee: a password is never kept. Only PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login) show the name; of
other mechanisms only their own name is known.
"""

from __future__ import annotations

import binascii
import re
from typing import Final, NamedTuple

_MECHANISM: Final = re.compile(rb"[A-Za-z0-9_-]{1,20}")  # RFC 4422 section 3.1
_NAME: Final = re.compile(rb"[^\0-\x1f\x7f]{1,255}")  # RFC 4616 section 2: at most 255 octets


class Login(NamedTuple):
    """A login. `mechanism`: in upper case. `name`: as it was sent. Both are empty if they are not known."""

    mechanism: bytes = b""
    name: bytes = b""


NO_LOGIN: Final = Login()


class LoginExchange:
    """One exchange, from the argument of AUTH on. Nothing is raised: what cannot be read is not known."""

    __slots__ = ("_asks_for_name", "_mechanism", "_name")

    def __init__(self, argument: bytes) -> None:
        words = argument.split()
        known = bool(words) and _MECHANISM.fullmatch(words[0]) is not None
        self._mechanism = words[0].upper() if known else b""
        self._name = b""
        self._asks_for_name = True
        """LOGIN: the next line has the name, not the password. An initial response has the name."""
        if len(words) == 2:
            self.response(words[1])

    def challenge(self, text: bytes) -> None:
        """The server asks (334): its text, in base64."""
        if self._mechanism == b"LOGIN":
            self._asks_for_name = _decoded(text).lower().startswith(b"user")  # `Username:`, or `User Name`

    def response(self, line: bytes) -> None:
        """The client answers: its line, in base64."""
        if self._mechanism == b"PLAIN":
            parts = _decoded(line).split(b"\0")
            self._take(parts[1] if len(parts) == 3 else b"")
        elif self._mechanism == b"LOGIN" and self._asks_for_name:
            self._take(_decoded(line))

    @property
    def login(self) -> Login:
        """What is known, if the server accepts it."""
        return Login(self._mechanism, self._name)

    def _take(self, name: bytes) -> None:
        if not self._name and _NAME.fullmatch(name):
            self._name = name


NO_EXCHANGE: Final = LoginExchange(b"")
"""Before the first AUTH. It stays as it is, so all sessions have the same."""


def _decoded(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text.strip(), strict_mode=True)
    except ValueError:
        return b""
