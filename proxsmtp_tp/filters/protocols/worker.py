"""The protocol of a worker: a command that judges many messages, one after the other, on standard input and output.

    it    proxsmtp-worker=1                 it is ready; the number is the version of this protocol
          (blank line)
    we    sender=a@example.org              name=value lines: what is known of the message
          recipient=b@example.org           one line for each recipient
          size=1234
          (blank line)
          (1234 octets of the message)
    it    action=pass                       pass, reject, tempfail, discard or quarantine
          addheader=X-Checked yes           edits, in order; only with pass and quarantine
          size=1240                         only if the message is replaced
          (blank line)
          (1240 octets)

In values, `%` and two hexadecimal digits stand for an octet: we write so each control character, each octet above 126,
and `%` itself; it must write so line ends. `%` before anything else is itself.

    addheader=NAME VALUE                    after the last field
    insheader=INDEX NAME VALUE              at a position, 0 is the top
    chgheader=INDEX NAME VALUE              the field of that name and number, 1 is the first
    delheader=INDEX NAME
    addrcpt=ADDRESS, delrcpt=ADDRESS, chgfrom=ADDRESS
    reply=550 5.7.1 Text                    for the client, if the message is refused or discarded
    reason=Text                             of a quarantine

Anything else is a ProtocolError: the failure of one message, and the end of that process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from proxsmtp_tp.filters import edits
from proxsmtp_tp.filters.protocols.errors import ProtocolError, excerpt
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

VERSION: Final = b"1"
HEAD_LIMIT = 1 << 20
"""Octets of a head: all edits that one filter may make, percent-encoded."""
EDITS_LIMIT = 1000
"""Edits of one answer (`editing` has the same limit)."""

LINES_LIMIT = EDITS_LIMIT + 100
"""Lines of a head: each costs a microsecond, in the event loop."""

_ENCODED = re.compile(rb"[^ -$&-~]")
_ENCODED_IN_LINES = re.compile(rb"[^ -$&-~\n]")
_AS_WRITTEN = [b"%%%02X" % octet if _ENCODED.match(bytes((octet,))) else bytes((octet,)) for octet in range(256)]
_END = re.compile(rb"\n\r?\n")
_NAME = re.compile(rb"[a-z][a-z-]*")
_NUMBER = re.compile(rb"[0-9]{1,12}")
_REPLY = re.compile(rb"([245][0-9]{2})(?: (.*))?", re.DOTALL)
_ACTIONS: Final = {
    b"pass": Action.PASS,
    b"quarantine": Action.PASS,
    b"reject": Action.REJECT,
    b"tempfail": Action.TEMPFAIL,
    b"discard": Action.DISCARD,
}
_CLASSES: Final = {Action.REJECT: 5, Action.TEMPFAIL: 4, Action.DISCARD: 2}


@dataclass(frozen=True, slots=True)
class WorkerAnswer:
    """What a worker says of a message. `size`: octets of the new message, which follow; None: it stays as it is."""

    action: Action
    reply: Reply | None
    edits: tuple[edits.Edit, ...]
    size: int | None


def encode(value: bytes) -> bytes:
    """A value as we write it."""
    return b"".join(map(_AS_WRITTEN.__getitem__, value)) if _ENCODED.search(value) else value


def decode(value: bytes) -> bytes:
    """A value as it was meant."""
    return unquote_to_bytes(value)


def request_head(lines: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head of a message: the octets follow."""
    lines = tuple(lines)
    plain = b"\n".join(map(b"=".join, lines))
    if plain.count(b"\n") == len(lines) - 1 and not _ENCODED_IN_LINES.search(plain):
        return plain + b"\n\n"
    return b"".join(name + b"=" + encode(value) + b"\n" for name, value in lines) + b"\n"


class HeadReader:
    """Reads one head of a worker. `lines` when it is complete; `rest`: the octets after it."""

    __slots__ = ("_buffer", "_lines_seen", "_looked_at", "lines", "rest")

    def __init__(self) -> None:
        self.lines: tuple[tuple[bytes, bytes], ...] | None = None
        self.rest = b""
        self._buffer = bytearray(b"\n")  # so that a head without a line ends as others do
        self._looked_at = self._lines_seen = 0

    def feed(self, data: bytes) -> tuple[tuple[bytes, bytes], ...] | None:
        """Take what the worker wrote; the lines when the head is complete. Raises ProtocolError."""
        before = len(self._buffer)
        self._buffer += data
        end = _END.search(self._buffer, self._looked_at)
        self._looked_at = max(0, len(self._buffer) - 2)  # the end may have come in part
        size = end.start() if end else len(self._buffer)
        if size > HEAD_LIMIT:
            raise ProtocolError(f"a head of more than {HEAD_LIMIT} octets: {excerpt(self._buffer[1:100])}")
        self._lines_seen += self._buffer.count(b"\n", before, size)
        if self._lines_seen > LINES_LIMIT:
            raise ProtocolError(f"a head of more than {LINES_LIMIT} lines")
        if end:
            self.lines = tuple(map(_pair, bytes(self._buffer[1 : end.start()]).split(b"\n")))
            self.rest = bytes(self._buffer[end.end() :])
        return self.lines


def _pair(line: bytes) -> tuple[bytes, bytes]:
    name, equals, value = line.removesuffix(b"\r").partition(b"=")
    if not equals or not _NAME.fullmatch(name):
        raise ProtocolError(f"no line name=value: {excerpt(line)}")
    return name, value


def check_ready(lines: Iterable[tuple[bytes, bytes]]) -> None:
    """Look at the first head of a worker. Raises ProtocolError if it speaks something else."""
    versions = [value for name, value in lines if name == b"proxsmtp-worker"]
    if versions != [VERSION]:
        raise ProtocolError(f"not ready: it must write proxsmtp-worker={VERSION.decode()} and a blank line first")


def parse_answer(lines: Iterable[tuple[bytes, bytes]]) -> WorkerAnswer:
    """Read the head of an answer. Raises ProtocolError."""
    once: dict[bytes, bytes] = {}
    changes: list[edits.Edit] = []
    for name, value in lines:
        parse = _EDITS.get(name)
        if parse is not None:
            changes.append(parse(name, value))
        elif name not in _ONCE:
            raise ProtocolError(f"no line of an answer: {excerpt(name)}")
        elif name in once:
            raise ProtocolError(f"two lines {excerpt(name)}")
        else:
            once[name] = decode(value)
    word = once.get(b"action", b"")
    action = _ACTIONS.get(word)
    if action is None:
        raise ProtocolError(f"no action: {excerpt(word)}")
    if len(changes) > EDITS_LIMIT:
        raise ProtocolError(f"more than {EDITS_LIMIT} edits")
    if action is not Action.PASS and (changes or b"size" in once):
        raise ProtocolError(f"action {excerpt(word)} with edits")
    if word == b"quarantine":
        changes.append(edits.Quarantine(once.get(b"reason", b"").decode("utf-8", "replace")))
    size = _number(once[b"size"]) if b"size" in once else None
    return WorkerAnswer(action, _reply(once.get(b"reply"), action), tuple(changes), size)


_ONCE: Final = frozenset((b"action", b"reply", b"reason", b"size"))


def _reply(text: bytes | None, action: Action) -> Reply | None:
    if not text:
        return None
    found = _REPLY.fullmatch(text)
    if found is None or action is Action.PASS or int(found[1]) // 100 != _CLASSES[action]:
        raise ProtocolError(f"reply {excerpt(text)} with action {action.value}")
    code = int(found[1])
    return Reply.quoting(451 if code == 421 else code, found[2] or b"")


def _number(text: bytes) -> int:
    if not _NUMBER.fullmatch(text):
        raise ProtocolError(f"not a number: {excerpt(text)}")
    return int(text)


def _words(name: bytes, value: bytes, count: int) -> list[bytes]:
    """The words of a value; the last one is the rest of the line."""
    words = value.split(b" ", count - 1)
    if len(words) < count:
        raise ProtocolError(f"{name.decode()} with {len(words)} words, not {count}: {excerpt(value)}")
    return [decode(word) for word in words]


def _add_header(name: bytes, value: bytes) -> edits.Edit:
    field, text = _words(name, value, 2)
    return edits.AddHeader(field, text)


def _insert_header(name: bytes, value: bytes) -> edits.Edit:
    index, field, text = _words(name, value, 3)
    return edits.InsertHeader(_number(index), field, text)


def _change_header(name: bytes, value: bytes) -> edits.Edit:
    index, field, text = _words(name, value, 3)
    return edits.ChangeHeader(field, _number(index), text)


def _delete_header(name: bytes, value: bytes) -> edits.Edit:
    index, field = _words(name, value, 2)
    return edits.ChangeHeader(field, _number(index), b"")


_EDITS: Final[dict[bytes, Callable[[bytes, bytes], edits.Edit]]] = {
    b"addheader": _add_header,
    b"insheader": _insert_header,
    b"chgheader": _change_header,
    b"delheader": _delete_header,
    b"addrcpt": lambda _, value: edits.AddRecipient(decode(value)),
    b"delrcpt": lambda _, value: edits.DeleteRecipient(decode(value)),
    b"chgfrom": lambda _, value: edits.ChangeSender(decode(value)),
}
