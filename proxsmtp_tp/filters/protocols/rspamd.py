"""rspamd over HTTP: POST /checkv2 (rspamd.com, doc/developers/protocol), and what its answer means for the message.

The answer means the same as in rspamd's milter mode (src/libserver/milter.c), so that both give the same octets:

    reject              554 5.7.1 and its text; with milter.reject "discard" or "quarantine" that
    soft reject         451 4.7.1 and its text
    add header          X-Spam: Yes, or what milter.spam_header says, in place of all fields of that name
    rewrite subject     another Subject
    quarantine, discard
    greylist, no action, another name
                        the message passes; it is delayed only by soft reject

With each of them: the fields that milter.remove_headers and add_headers name, change_from, add_rcpt, del_rcpt, the
signature that was made (dkim-signature), and the new body. Text is what it is in the answer: octets that are not UTF-8
stay as they are.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from proxsmtp_tp.filters import edits
from proxsmtp_tp.filters.protocols.errors import ProtocolError, excerpt
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from proxsmtp_tp.filters.protocols.answers import Head

JSON_LIMIT = 4 << 20
"""Octets of an answer without a new body: all symbols of rspamd with options have some hundreds of kilobytes."""

EDITS_LIMIT = 1000
"""Edits of one answer (`editing` has the same limit)."""

SPAM_HEADER: Final = b"X-Spam"
ACTION_HEADER: Final = b"X-Rspamd-Action"
REJECTED: Final = "Spam message rejected"
DEFERRED: Final = "Try again later"
QUARANTINED: Final = "Spam message quarantined"


@dataclass(frozen=True, slots=True)
class RspamdAnswer:
    """What rspamd says of a message. `action` and `score` are for the log; `reply` is None unless it is refused."""

    decision: Action
    reply: Reply | None
    edits: tuple[edits.Edit, ...]
    action: str
    score: float


def request_head(size: int, lines: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head of the request: `size` octets follow. Control characters in values become `?`: they end a line."""
    head = [b"POST /checkv2 HTTP/1.1"]
    head += [name + b": " + _clean(value) for name, value in lines]
    head += [b"Content-Length: %d" % size, b"Connection: close"]
    return b"\r\n".join([*head, b"", b""])


_PRINTABLE = bytes(octet if octet >= 32 and octet != 127 else 63 for octet in range(256))


def _clean(value: bytes) -> bytes:
    return value.translate(_PRINTABLE)


def json_size(head: Head) -> int | None:
    """Octets of the answer before the new body; None if there is none. Raises ProtocolError for a status of failure."""
    version, _, status = head.start.partition(b" ")
    if not version.startswith(b"HTTP/1.") or not status.startswith(b"200"):
        raise ProtocolError(f"no verdict of rspamd: {excerpt(head.start)}")
    offset = head.get(b"message-offset")
    if offset is None:
        return None
    if not offset.isdigit() or len(offset) > 9:
        raise ProtocolError(f"Message-Offset {excerpt(offset)}")
    return int(offset)


def parse_answer(octets: bytes, names: Iterable[bytes]) -> RspamdAnswer:
    """Read the JSON of an answer. `names`: of the header fields of the message, in order. Raises ProtocolError."""
    try:
        answer = json.loads(octets.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {type(error).__name__}: {excerpt(octets)}") from error
    if not isinstance(answer, dict):
        raise ProtocolError(f"not an object in JSON: {excerpt(octets)}")
    return _Meaning(answer, [name.lower() for name in names]).answer()


class _Meaning:
    """What the fields of one answer mean."""

    def __init__(self, answer: dict[str, Any], names: list[bytes]) -> None:
        self._answer = answer
        action = answer.get("action")
        if not isinstance(action, str):
            error = answer.get("error")
            raise ProtocolError(
                f"no action: {error}" if isinstance(error, str) and error.isprintable() else "no action"
            )
        self._action = action
        block = answer.get("milter")
        self._block: dict[str, Any] = block if isinstance(block, dict) else {}
        self._count = Counter(names)
        self._fields = len(names)

    def answer(self) -> RspamdAnswer:
        score = self._answer.get("score")
        number = float(score) if isinstance(score, float) or (isinstance(score, int) and abs(score) < 2**53) else 0.0
        decision, reply = self._decision()
        changed = tuple(islice(self._edits(), EDITS_LIMIT + 1)) if decision is Action.PASS else ()
        if len(changed) > EDITS_LIMIT:
            raise ProtocolError(f"more than {EDITS_LIMIT} edits")
        return RspamdAnswer(decision, reply, changed, self._action, number)

    def _decision(self) -> tuple[Action, Reply | None]:
        if self._no_action:
            return Action.PASS, None
        if self._action == "discard":
            return Action.DISCARD, None
        if self._action == "soft reject":
            return Action.TEMPFAIL, Reply.quoting(451, b"4.7.1 " + _octets(self._said(DEFERRED)))
        if self._action == "reject":
            instead = self._block.get("reject")
            if instead == "discard":
                return Action.DISCARD, None
            if instead != "quarantine":
                return Action.REJECT, Reply.quoting(554, b"5.7.1 " + _octets(self._said(REJECTED)))
        return Action.PASS, None

    @property
    def _no_action(self) -> bool:
        """rspamd's own shadow mode for one message: the action goes only into a header field."""
        return self._block.get("no_action") is True

    def _said(self, otherwise: str) -> str:
        messages = self._answer.get("messages")
        said = messages.get("smtp_message") if isinstance(messages, dict) else None
        return said if isinstance(said, str) else otherwise

    def _edits(self) -> Iterator[edits.Edit]:
        yield from self._removed()
        yield from self._added()
        yield from self._envelope()
        marked = self._action == "add header" and self._block.get("spam_header")
        if marked:
            yield from self._marked(marked)
        yield from self._signatures()
        if marked:
            return
        if self._no_action:
            yield edits.AddHeader(ACTION_HEADER, _octets(self._action))
        elif self._action == "add header":
            yield from self._marked("Yes")
        elif self._action == "rewrite subject":
            subject = self._answer.get("subject")
            if isinstance(subject, str):
                yield edits.ChangeHeader(b"Subject", 1, _octets(subject))
        elif self._action in {"quarantine", "reject"}:
            yield edits.Quarantine(QUARANTINED)

    def _removed(self) -> Iterator[edits.Edit]:
        for name, numbers in _items(self._block.get("remove_headers")):
            for number in numbers if isinstance(numbers, list) else [numbers]:
                if isinstance(number, int):
                    yield from self._without(_octets(name), number)

    def _without(self, name: bytes, number: int) -> Iterator[edits.Edit]:
        """Delete one field of that name; all for 0; counted from the end if it is negative."""
        count = self._count[name.lower()]
        if number == 0:
            if count:
                yield edits.RemoveHeader(name)
        elif 0 < number <= count:
            yield edits.ChangeHeader(name, number, b"")
        elif -count <= number < 0:
            yield edits.ChangeHeader(name, count + number + 1, b"")

    def _added(self) -> Iterator[edits.Edit]:
        for name, given in _items(self._block.get("add_headers")):
            for one in given if isinstance(given, list) else [given]:
                value = one.get("value") if isinstance(one, dict) else one
                if not isinstance(value, str):
                    continue
                order = one.get("order", one.get("index")) if isinstance(one, dict) else None
                if isinstance(order, int) and order != -1:
                    yield edits.InsertHeader(self._index(order), _octets(name), _octets(value))
                else:
                    yield edits.AddHeader(_octets(name), _octets(value))
                self._fields += 1

    def _index(self, order: int) -> int:
        """The position of a new field: a negative one counts from the end of the header with the fields added so far.

        -1 is the end, -2 is before the last field.
        """
        if order >= 0:
            return order
        return self._fields + order + 2 if -order <= self._fields else 0

    def _envelope(self) -> Iterator[edits.Edit]:
        sender = self._block.get("change_from")
        if isinstance(sender, str):
            yield edits.ChangeSender(_octets(sender))
        for address in _strings(self._block.get("add_rcpt")):
            yield edits.AddRecipient(_octets(address))
        for address in _strings(self._block.get("del_rcpt")):
            yield edits.DeleteRecipient(_octets(address))

    def _marked(self, header: object) -> Iterator[edits.Edit]:
        named = {SPAM_HEADER.decode(): header} if isinstance(header, str) else header
        for name, value in _items(named):
            if isinstance(value, str):
                yield from self._without(_octets(name), 0)
                yield edits.ChangeHeader(_octets(name), 1, _octets(value))

    def _signatures(self) -> Iterator[edits.Edit]:
        for at, value in enumerate(_strings(self._answer.get("dkim-signature")), 1):
            yield edits.InsertHeader(at, b"DKIM-Signature", _octets(value))


def _octets(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair (\\ud800), which no octets stand for
        return text.encode("utf-8", "replace")


def _items(known: object) -> Iterator[tuple[str, Any]]:
    if isinstance(known, dict):
        yield from known.items()


def _strings(known: object) -> Iterator[str]:
    """A string, or the strings of a list."""
    for one in known if isinstance(known, list) else [known]:
        if isinstance(one, str):
            yield one
