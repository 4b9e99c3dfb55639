"""What a filter may change: values, without any effect. `filters.editing` applies them.

Names and values are octets. A value is what follows the colon and one space, folded or not: its line ends (LF or CRLF)
become CRLF, and a folded line that begins with no white space gets a tab. `verbatim`: the value is what follows the
colon itself (milter: SMFIP_HDR_LEADSPC).
Addresses have no angle brackets; `<a@b>` is read as `a@b`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from proxsmtp_tp.filters.mail import Text


@dataclass(frozen=True, slots=True)
class AddHeader:
    """A new field after the last one."""

    name: bytes
    value: bytes
    verbatim: bool = False


@dataclass(frozen=True, slots=True)
class InsertHeader:
    """A new field before the field at `index`, counted as an MTA delivers them: with a Received field of its own at 0.

    So 0 and 1 are the top, 2 is after the client's first field, and a number larger than the header is its end.
    """

    index: int
    name: bytes
    value: bytes
    verbatim: bool = False


@dataclass(frozen=True, slots=True)
class ChangeHeader:
    """Replace the field with this name and number (1 is the first, 0 means 1). An empty value deletes it.

    A field that does not exist is added at the end. A deleted field keeps its number until the filter has ended, so the
    numbers of the others stay (sendmail; Postfix renumbers).
    """

    name: bytes
    index: int
    value: bytes
    verbatim: bool = False


@dataclass(frozen=True, slots=True)
class RemoveHeader:
    """Delete all fields of this name, however many the sender wrote: one edit."""

    name: bytes


@dataclass(frozen=True, slots=True)
class ReplaceBody:
    """A new body. The chain closes `text`."""

    text: Text


@dataclass(frozen=True, slots=True)
class ReplaceMessage:
    """A new message: header, blank line, body. The chain closes `text`."""

    text: Text


@dataclass(frozen=True, slots=True)
class ChangeSender:
    """A new reverse-path (b"" is the null one). RET and ENVID in `parameters` replace those of the client."""

    address: bytes
    parameters: bytes = b""


@dataclass(frozen=True, slots=True)
class AddRecipient:
    """One more recipient; nothing if the message has it. `parameters`: NOTIFY and ORCPT."""

    address: bytes
    parameters: bytes = b""


@dataclass(frozen=True, slots=True)
class DeleteRecipient:
    """One recipient less; nothing if the message does not have it. The domain's case does not matter."""

    address: bytes


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Keep the message instead of delivering it. It ends nothing: a later refusal counts more."""

    reason: str


HeaderEdit = AddHeader | InsertHeader | ChangeHeader | RemoveHeader
BodyEdit = ReplaceBody | ReplaceMessage
EnvelopeEdit = ChangeSender | AddRecipient | DeleteRecipient
Edit = HeaderEdit | BodyEdit | EnvelopeEdit | Quarantine


def shown_edit(edit: Edit) -> str:
    """An edit as one line of printable text."""
    match edit:
        case AddHeader() | InsertHeader() | ChangeHeader() | RemoveHeader():
            return _shown_header_edit(edit)
        case ReplaceBody(text):
            return f"replace the body ({text.size} octets)"
        case ReplaceMessage(text):
            return f"replace the message ({text.size} octets)"
        case ChangeSender(address, parameters):
            return f"sender <{_shown(address)}> {_shown(parameters)}".rstrip()
        case AddRecipient(address, parameters):
            return f"add recipient <{_shown(address)}> {_shown(parameters)}".rstrip()
        case DeleteRecipient(address):
            return f"delete recipient <{_shown(address)}>"
        case Quarantine(reason):
            return f"quarantine: {reason}"
        case _:
            assert_never(edit)


def _shown_header_edit(edit: HeaderEdit) -> str:
    match edit:
        case AddHeader(name, value):
            return f"add {_shown(name)}: {_shown(value)}"
        case InsertHeader(index, name, value):
            return f"insert at {index} {_shown(name)}: {_shown(value)}"
        case ChangeHeader(name, index, value):
            return f"change {_shown(name)} {index}: {_shown(value)}" if value else f"delete {_shown(name)} {index}"
        case RemoveHeader(name):
            return f"delete all {_shown(name)}"
        case _:
            assert_never(edit)


def _shown(octets: bytes) -> str:
    return ascii(octets[:200].decode("utf-8", "backslashreplace"))[1:-1]
