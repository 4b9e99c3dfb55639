"""For workers in Python: filters that are started once and judge many messages (Filter: NAME worker COMMAND).

    from proxsmtp_tp.worker import passed, rejected, run

    def judge(message):
        if b"lottery" in message.read():
            return rejected("550 5.7.1 No lotteries")
        return passed().add_header("X-Checked", "yes")

    run(judge)

This file needs nothing but Python 3.11 or later, also not the rest of proxsmtp-tp: it may be copied next to a filter.

Standard output belongs to the protocol: `print` goes to standard error, which the daemon logs. An error that `judge`
raises ends the worker; then failure= of the filter says what happens to the message.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY = 1 << 20
"""Octets of a message that are kept in memory; a larger one is in a file without a name, in TMPDIR."""

_READY = b"proxsmtp-worker=1\n\n"
_ENCODED = re.compile(rb"[^ -$&-~]")
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")

Text = str | bytes


class Message:
    """A message, and what is known of it.

    `sender` is "" for the null sender. `facts` has all values by name: connection, id, client, client_port, server,
    server_port, helo, remote, remote_helo, authenticated, sender, size. Octets that are not UTF-8 are surrogates.
    """

    def __init__(self, facts: dict[str, str], recipients: list[str], file: IO[bytes]) -> None:
        self.facts = facts
        self.sender = facts.get("sender", "")
        self.recipients = recipients
        self.client = facts.get("client", "")
        self.helo = facts.get("helo", "")
        self.size = int(facts["size"])
        self.file = file
        """The octets, with CRLF line ends, from the beginning."""

    def read(self) -> bytes:
        """All octets."""
        self.file.seek(0)
        return self.file.read()


class Answer:
    """What to do with a message: made by `passed`, `rejected`, `deferred`, `discarded`, `quarantined`."""

    def __init__(self, action: str, *lines: bytes) -> None:
        self._lines = [b"action=" + action.encode(), *lines]
        self._new: bytes | IO[bytes] | None = None

    def add_header(self, name: Text, value: Text) -> Answer:
        """A header field after the last one."""
        return self._with(b"addheader", name, value)

    def insert_header(self, index: int, name: Text, value: Text) -> Answer:
        """A header field at a position: 0 is the top."""
        return self._with(b"insheader", str(index), name, value)

    def change_header(self, name: Text, value: Text, number: int = 1) -> Answer:
        """Another value for the field of that name and number; without such a field, a new one."""
        return self._with(b"chgheader", str(number), name, value)

    def delete_header(self, name: Text, number: int = 1) -> Answer:
        """Delete the field of that name and number. Numbers of the others do not change."""
        return self._with(b"delheader", str(number), name)

    def add_recipient(self, address: Text) -> Answer:
        """One more recipient."""
        return self._with(b"addrcpt", address)

    def delete_recipient(self, address: Text) -> Answer:
        """One recipient less."""
        return self._with(b"delrcpt", address)

    def change_sender(self, address: Text) -> Answer:
        """Another sender; "" is the null sender."""
        return self._with(b"chgfrom", address)

    def replace(self, message: bytes | IO[bytes]) -> Answer:
        """Another message: octets, or a binary file that is read from its position to its end."""
        self._new = message
        return self

    def _with(self, name: bytes, *words: Text) -> Answer:
        self._lines.append(name + b"=" + b" ".join(map(_encode, words)))
        return self

    def write(self, output: IO[bytes]) -> None:
        """Write it as the protocol wants it."""
        new = self._new
        if new is None:
            output.write(b"\n".join([*self._lines, b"", b""]))
        elif isinstance(new, bytes):
            output.write(b"\n".join([*self._lines, b"size=%d" % len(new), b"", b""]) + new)
        else:
            start = new.tell()
            size = new.seek(0, 2) - start
            new.seek(start)
            output.write(b"\n".join([*self._lines, b"size=%d" % size, b"", b""]))
            shutil.copyfileobj(new, output)
        output.flush()


def passed() -> Answer:
    """The message goes on, perhaps with edits."""
    return Answer("pass")


def rejected(reply: Text = "") -> Answer:
    """The client gets this reply, `550 5.7.1 Text`, and gives up."""
    return Answer("reject", *_reply(reply))


def deferred(reply: Text = "") -> Answer:
    """The client gets this reply, `451 4.7.1 Text`, and tries again later."""
    return Answer("tempfail", *_reply(reply))


def discarded(reply: Text = "") -> Answer:
    """The client gets this reply, `250 2.0.0 Text`; nobody gets the message."""
    return Answer("discard", *_reply(reply))


def quarantined(reason: Text = "") -> Answer:
    """The message is kept (QuarantineDirectory)."""
    return Answer("quarantine", *([b"reason=" + _encode(reason)] if reason else []))


def run(judge: Callable[[Message], Answer]) -> None:
    """Judge messages until the daemon closes standard input."""
    source, output = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    output.write(_READY)
    output.flush()
    while True:
        facts, recipients = _read_head(source)
        if not facts:
            return
        with tempfile.SpooledTemporaryFile(MEMORY) as file:
            _copy(source, file, int(facts["size"]))
            judge(Message(facts, recipients, file)).write(output)


def _read_head(source: IO[bytes]) -> tuple[dict[str, str], list[str]]:
    """What is known of the next message; nothing at the end."""
    facts: dict[str, str] = {}
    recipients: list[str] = []
    for line in iter(source.readline, b""):
        name, _, value = line.rstrip(b"\r\n").partition(b"=")
        if not name:
            return facts, recipients
        text = _PERCENT.sub(lambda found: bytes.fromhex(found[1].decode()), value).decode("utf-8", "surrogateescape")
        if name == b"recipient":
            recipients.append(text)
        else:
            facts[name.decode().replace("-", "_")] = text
    return {}, []


def _copy(source: IO[bytes], file: IO[bytes], size: int) -> None:
    while size:
        data = source.read(min(size, 65536))
        if not data:
            raise EOFError("the message ended too early")
        file.write(data)
        size -= len(data)
    file.seek(0)


def _reply(text: Text) -> list[bytes]:
    return [b"reply=" + _encode(text)] if text else []


def _encode(text: Text) -> bytes:
    octets = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return _ENCODED.sub(lambda found: b"%%%02X" % found[0][0], octets)
