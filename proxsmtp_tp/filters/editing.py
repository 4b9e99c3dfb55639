"""Applies the edits of one filter to a message and its envelope. Pure: texts are only referred to.

Guarantees, whatever a filter sends: an edited field is one field (no line of it begins the body, another field or
another message); an address is one that MAIL and RCPT take; without an edit the result is the same object, octet for
octet.
An edit that cannot be applied raises EditError: a failure of that filter.

Header fields follow sendmail: edits are applied in order, and a deleted field keeps its number until the filter has
ended (sendmail 8.18 milter.c, `addheader`, `insheader`, `milter_changeheader`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from proxsmtp_tp.filters import edits as values
from proxsmtp_tp.filters.fields import Field, Header, HeaderTooLargeError
from proxsmtp_tp.filters.mail import Mail, Octets, Piece
from proxsmtp_tp.smtp.envelope import Envelope
from proxsmtp_tp.smtp.paths import ParameterError, PathError, read_forward_path, read_reverse_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxsmtp_tp.filters.edits import Edit, EnvelopeEdit, HeaderEdit

EDITS_LIMIT = 1000
"""Edits of one filter for one message: no filter needs more."""
WALKS_LIMIT = 200_000
"""Fields that all edits of one filter may read: an edit that changes or inserts a field reads the header from its
beginning. So many take ten milliseconds. A header of 200 fields may have 1000 such edits, one of 10,000 fields may have
20. The sender writes the fields, so more is HeaderTooLargeError, and not a failure of the filter."""
ADDED_LIMIT = 256 * 1024
"""Octets of header fields that one filter may write: four times what libmilter could send in one packet."""
RECIPIENTS_LIMIT = 1000
"""Recipients of an edited envelope: ten times what RFC 5321 (section 4.5.3.1.8) asks of every server."""
NAME_LIMIT = 998
"""Octets of a field's name: the limit of a line (RFC 5322 section 2.1.1)."""

ADDRESS_LIMIT = 512
"""Octets of an address: twice the longest path (RFC 5321 section 4.5.3.1.3)."""

_NAME = re.compile(rb"[!-9;-~]{1,%d}" % NAME_LIMIT)
_MAIL_PARAMETERS = frozenset({b"RET", b"ENVID"})
_RCPT_PARAMETERS = frozenset({b"NOTIFY", b"ORCPT"})
"""What a filter may add (RFC 3461 sections 4.1 - 4.4), as with Postfix (MILTER_README); the rest is dropped."""


class EditError(ValueError):
    """An edit that cannot be applied. The text is one line for the log."""


@dataclass(frozen=True, slots=True)
class Edited:
    """A message after the edits of one filter. `quarantine`: the reason of the last Quarantine."""

    mail: Mail
    envelope: Envelope
    quarantine: str | None = None


def apply(mail: Mail, envelope: Envelope, edits: Iterable[Edit]) -> Edited:
    """Apply edits in order. Raises EditError, HeaderTooLargeError, and OSError if the message is lost."""
    edits = tuple(edits)
    if not edits:
        return Edited(mail, envelope)
    if len(edits) > EDITS_LIMIT:
        raise EditError(f"more than {EDITS_LIMIT} edits")
    fields: _Fields | None = None
    body: tuple[Piece, ...] | None = None
    quarantine: str | None = None
    edited = _Envelope(envelope)
    for edit in edits:
        match edit:
            case values.ReplaceMessage(text):
                mail, fields, body = Mail.of(text), None, None
            case values.ReplaceBody(text):
                body = (Piece(text, 0, text.size),) if text.size else ()
            case values.Quarantine(reason):
                quarantine = reason
            case values.AddHeader() | values.InsertHeader() | values.ChangeHeader() | values.RemoveHeader():
                fields = fields or _Fields(mail.header)
                fields.apply(edit)
            case values.ChangeSender() | values.AddRecipient() | values.DeleteRecipient():
                edited.apply(edit)
            case _:
                assert_never(edit)
    return Edited(_assembled(mail, fields, body), edited.result(), quarantine)


def _assembled(mail: Mail, fields: _Fields | None, body: tuple[Piece, ...] | None) -> Mail:
    if (fields is None or not fields.changed) and body is None:
        return mail
    old = mail.header
    pieces = mail.body_pieces() if body is None else body
    live = fields.live if fields is not None else old.fields
    blank = old.blank or (b"\r\n" if pieces else b"")
    header = Header(old.mailbox_line, tuple(map(_ended, live)), blank)
    head = Octets(header.octets)
    return Mail(((Piece(head, 0, head.size),) if head.size else ()) + pieces, header)


def _ended(field: Field) -> Field:
    """A field that ends its last line: at the end of a message it may lack that."""
    return field if field.octets.endswith(b"\n") else Field(field.octets.rstrip(b"\r") + b"\r\n")


class _Fields:
    """The header while one filter edits it: None stands for a deleted field."""

    def __init__(self, header: Header) -> None:
        self._slots: list[Field | None] = list(header.fields)
        self._names = [field.name.lower() for field in header.fields]
        self._most = WALKS_LIMIT // max(1, len(self._slots))
        self._written = self._walks = 0
        self.changed = False

    @property
    def live(self) -> tuple[Field, ...]:
        return tuple(field for field in self._slots if field is not None)

    def apply(self, edit: HeaderEdit) -> None:
        match edit:
            case values.AddHeader(name, value, verbatim):
                self._insert(len(self._slots), self._field(name, value, verbatim=verbatim))
            case values.InsertHeader(index, name, value, verbatim):
                self._insert(self._slot_before(index), self._field(name, value, verbatim=verbatim))
            case values.ChangeHeader(name, index, value, verbatim):
                self._change(name, index, value, verbatim=verbatim)
            case values.RemoveHeader(name):
                self._remove(name)
            case _:
                assert_never(edit)

    def _field(self, name: bytes, value: bytes, *, verbatim: bool) -> Field:
        field = make_field(name, value, verbatim=verbatim)
        self._written += len(field.octets)
        if self._written > ADDED_LIMIT:
            raise EditError(f"header fields of more than {ADDED_LIMIT} octets")
        return field

    def _insert(self, slot: int, field: Field) -> None:
        self._slots.insert(slot, field)
        self._names.insert(slot, field.name.lower())
        self.changed = True

    def _slot_before(self, index: int) -> int:
        """The slot of the field that is delivered at `index`, with an own Received field at 0."""
        if index < 0:
            raise EditError(f"a header field at index {index}")
        self._walk()
        before = index - 1
        for slot, field in enumerate(self._slots):
            if before <= 0:
                return slot
            before -= field is not None
        return len(self._slots)

    def _slots_of(self, name: bytes) -> list[int]:
        self._walk()
        wanted = name.lower()
        return [slot for slot, known in enumerate(self._names) if known == wanted]

    def _walk(self) -> None:
        self._walks += 1
        if self._walks > self._most:
            raise HeaderTooLargeError(f"more than {self._most} edits of a header with so many fields")

    def _remove(self, name: bytes) -> None:
        for slot in self._slots_of(name):
            self._slots[slot] = None
            self.changed = True

    def _change(self, name: bytes, index: int, value: bytes, *, verbatim: bool) -> None:
        if index < 0:
            raise EditError(f"the header field number {index}")
        slots = self._slots_of(name)
        number = max(1, index)
        field = self._field(name, value, verbatim=verbatim) if value else None
        if number <= len(slots):
            slot = slots[number - 1]
            self.changed = self.changed or self._slots[slot] != field
            self._slots[slot] = field
        elif field is not None:
            self._insert(len(self._slots), field)


def make_field(name: bytes, value: bytes, *, verbatim: bool = False) -> Field:
    """One well-formed field. Raises EditError for a name or value that could be read as anything else."""
    if not _NAME.fullmatch(name):
        raise EditError(f"{name[:80]!r} is no name of a header field")
    lines = value.replace(b"\r\n", b"\n").split(b"\n")
    if any(b"\r" in line or b"\0" in line for line in lines):
        raise EditError(f"the value of {name.decode()} contains a bare CR or a NUL")
    first = lines[0] if verbatim else b" " + lines[0]
    # A line of white space alone would end the header for some servers.
    folded = [line if line[:1] in b" \t" else b"\t" + line for line in lines[1:] if line.strip(b" \t")]
    return Field(b"\r\n".join([name + b":" + first, *folded]) + b"\r\n")


# The envelope.


class _Envelope:
    """The envelope while one filter edits it. A recipient is found by its mailbox: there may be 10,000 of them."""

    def __init__(self, envelope: Envelope) -> None:
        self._given = envelope
        self._sender = envelope.sender
        self._sender_parameters = envelope.sender_parameters
        self._recipients: list[tuple[bytes, bytes] | None] | None = None
        """Address and parameters; None for a deleted one. None: no edit has needed them."""
        self._places: dict[tuple[bytes, bytes], list[int]] = {}
        self._count = len(envelope.recipients)
        self._changed = False

    def apply(self, edit: EnvelopeEdit) -> None:
        match edit:
            case values.ChangeSender(address, parameters):
                self._change_sender(_reverse_path(address), _parameters(parameters))
            case values.AddRecipient(address, parameters):
                self._add(_forward_path(address), _parameters(parameters))
            case values.DeleteRecipient(address):
                self._delete(_forward_path(address))
            case _:
                assert_never(edit)

    def result(self) -> Envelope:
        """A new envelope; the given object if nothing has changed."""
        if not self._changed:
            return self._given
        if self._recipients is None:
            recipients, parameters = list(self._given.recipients), list(self._given.recipient_parameters)
        else:
            live = [each for each in self._recipients if each is not None]
            recipients, parameters = [address for address, _ in live], [words for _, words in live]
        return Envelope(self._sender, self._sender_parameters, recipients, parameters)

    def _change_sender(self, sender: bytes, given: bytes) -> None:
        self._check_ascii(sender)
        words = [word for word in given.split() if word.partition(b"=")[0].upper() in _MAIL_PARAMETERS]
        if sender == self._sender and not words:
            return
        names = {word.partition(b"=")[0].upper() for word in words}
        kept = [
            word
            for word in self._sender_parameters.split()
            if (name := word.partition(b"=")[0].upper()) != b"AUTH" and name not in names
        ]
        self._sender, self._sender_parameters = sender, b" ".join([*kept, *words])
        self._changed = True

    def _add(self, address: bytes, parameters: bytes) -> None:
        self._check_ascii(address)
        recipients = self._read()
        places = self._places.setdefault(_mailbox(address), [])
        if places:
            return
        if self._count >= RECIPIENTS_LIMIT:
            raise EditError(f"more than {RECIPIENTS_LIMIT} recipients")
        words = [word for word in parameters.split() if word.partition(b"=")[0].upper() in _RCPT_PARAMETERS]
        places.append(len(recipients))
        recipients.append((address, b" ".join(words)))
        self._count += 1
        self._changed = True

    def _delete(self, address: bytes) -> None:
        recipients = self._read()
        for place in self._places.pop(_mailbox(address), ()):
            recipients[place] = None
            self._count -= 1
            self._changed = True

    def _read(self) -> list[tuple[bytes, bytes] | None]:
        if self._recipients is None:
            given = self._given
            self._recipients = list(zip(given.recipients, given.recipient_parameters, strict=True))
            for place, address in enumerate(given.recipients):
                self._places.setdefault(_mailbox(address), []).append(place)
        return self._recipients

    def _check_ascii(self, address: bytes) -> None:
        if not address.isascii() and b"SMTPUTF8" not in self._sender_parameters.upper().split():
            raise EditError(f"{address[:256]!r} needs SMTPUTF8 (RFC 6531), which the client did not use")


def _mailbox(address: bytes) -> tuple[bytes, bytes]:
    """The same for addresses of the same mailbox: the case of letters counts in the local part only.

    It does not in `postmaster` without a domain (RFC 5321 section 4.5.1).
    """
    local, _, domain = address.rpartition(b"@")
    return local, domain.lower()


def _reverse_path(address: bytes) -> bytes:
    try:
        path = read_reverse_path(_bracketed(address))
    except (PathError, ParameterError):
        raise EditError(f"{address[:256]!r} is no sender address") from None
    return path.address


def _forward_path(address: bytes) -> bytes:
    try:
        path = read_forward_path(_bracketed(address))
    except (PathError, ParameterError):
        raise EditError(f"{address[:256]!r} is no recipient address") from None
    return path.address


def _bracketed(address: bytes) -> bytes:
    address = address.strip(b" \t")
    if len(address) > ADDRESS_LIMIT:
        raise EditError(f"an address of {len(address)} octets")
    return address if address.startswith(b"<") and address.endswith(b">") else b"<" + address + b">"


def _parameters(text: bytes) -> bytes:
    """Checked, with one space between them."""
    try:
        given = read_reverse_path(b"<> " + text).parameters if text.strip() else b""
    except (PathError, ParameterError):
        raise EditError(f"{text[:256]!r} are no ESMTP parameters") from None
    return b" ".join(given.split())
