"""What a trace shows of commands and replies: everything except secrets.

Secrets are the lines and challenges of AUTH (RFC 4954 section 4), and the arguments of other verbs with a password or
an authorization. Of a line that is no command only the length is shown: after a failed AUTH it may be a password. Of a
reply that repeats a word of a secret line (Sendmail: 501 5.5.4 cannot BASE64 decode) only the code is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.smtp.commands import AUTH_VERBS, SECRET_VERBS, VERBS

if TYPE_CHECKING:
    from proxsmtp_tp.smtp.commands import Command
    from proxsmtp_tp.smtp.replies import Reply

_WORD = 4
"""The shortest word of a secret line, in octets, that a shown reply must not contain."""


class Tracing:
    """Whether a session is traced, and what must not be shown."""

    __slots__ = ("_secret", "login_tried", "on")

    def __init__(self, on: bool) -> None:
        self.on = on
        self.login_tried = False
        """The client has sent AUTH: a later line that is no known command may be a password."""
        self._secret = b""

    def asked(self, line: bytes, *, auth: bool) -> None:
        """The next reply answers this line; `auth`: it begins or continues AUTH."""
        self._secret = line if auth or self._is_secret(_verb(line)) else b""

    def reply(self, reply: Reply) -> bytes:
        """A reply of the server, or to the client: 334 is a challenge of AUTH."""
        repeats = any(len(word) >= _WORD and word in reply.wire for word in self._secret.split())
        return b"%d ..." % reply.code if reply.code == 334 or repeats else reply.wire

    def command(self, command: Command) -> bytes:
        """A client's command."""
        return self._shown(command.verb, command.line)

    def sent(self, line: bytes, *, auth: bool) -> bytes:
        """A command to the server."""
        verb = _verb(line)
        if auth and verb not in AUTH_VERBS:
            return b"(%d octets of AUTH)" % len(line)
        return self._shown(verb, line)

    def _shown(self, verb: bytes, line: bytes) -> bytes:
        if verb in SECRET_VERBS:
            return verb + b" ..."
        if self._is_secret(verb):
            return b"(%d octets that are no known command after AUTH)" % len(line)
        return line

    def _is_secret(self, verb: bytes) -> bool:
        return verb in SECRET_VERBS or (self.login_tried and verb not in VERBS)


def _verb(line: bytes) -> bytes:
    return line.partition(b" ")[0].strip().upper()
