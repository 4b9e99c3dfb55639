"""What a milter wants changed: its packets as values of `filters.edits`.

Only the form of a packet is checked here. What a name, a value or an address may contain: `filters.editing`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.filters import edits
from proxsmtp_tp.filters.protocols.errors import ProtocolError, excerpt
from proxsmtp_tp.filters.protocols.milter_packets import Answer, Packet, split_strings

if TYPE_CHECKING:
    from collections.abc import Callable

_INDEX = struct.Struct(">I")


def parse_edit(packet: Packet, *, leading_space: bool) -> edits.Edit | None:
    """The edit in a packet; None if the packet is no edit, or REPLBODY. Raises ProtocolError.

    `leading_space`: LEADING_SPACE was chosen, so a value is all that follows the colon.
    """
    parse = _PARSERS.get(packet.code)
    if parse is None:
        return None
    return parse(packet.payload, leading_space)


def _add_header(payload: bytes, leading_space: bool) -> edits.Edit:
    name, value = _field(payload)
    return edits.AddHeader(name, value, leading_space)


def _insert_header(payload: bytes, leading_space: bool) -> edits.Edit:
    index, name, value = _indexed(payload)
    return edits.InsertHeader(index, name, value, leading_space)


def _change_header(payload: bytes, leading_space: bool) -> edits.Edit:
    index, name, value = _indexed(payload)
    return edits.ChangeHeader(name, index, value, leading_space)


def _change_sender(payload: bytes, _: bool) -> edits.Edit:
    return edits.ChangeSender(*_address(payload))


def _add_recipient(payload: bytes, _: bool) -> edits.Edit:
    return edits.AddRecipient(*_address(payload))


def _delete_recipient(payload: bytes, _: bool) -> edits.Edit:
    return edits.DeleteRecipient(_address(payload)[0])


def _quarantine(payload: bytes, _: bool) -> edits.Edit:
    return edits.Quarantine(payload.partition(b"\0")[0].decode("utf-8", "replace"))


_PARSERS: Final[dict[bytes, Callable[[bytes, bool], edits.Edit]]] = {
    Answer.ADD_HEADER: _add_header,
    Answer.INSERT_HEADER: _insert_header,
    Answer.CHANGE_HEADER: _change_header,
    Answer.CHANGE_SENDER: _change_sender,
    Answer.ADD_RECIPIENT: _add_recipient,
    Answer.ADD_RECIPIENT_PARAMETERS: _add_recipient,
    Answer.DELETE_RECIPIENT: _delete_recipient,
    Answer.QUARANTINE: _quarantine,
}


def _indexed(payload: bytes) -> tuple[int, bytes, bytes]:
    if len(payload) < _INDEX.size:
        raise ProtocolError("a header field without its number")
    (index,) = _INDEX.unpack_from(payload)
    return index, *_field(payload[_INDEX.size :])


def _field(payload: bytes) -> tuple[bytes, bytes]:
    texts = split_strings(payload)
    if len(texts) != 2:
        raise ProtocolError(f"a header field of {len(texts)} strings: {excerpt(payload)}")
    return texts[0], texts[1]


def _address(payload: bytes) -> tuple[bytes, bytes]:
    """An address without its angle brackets, and its ESMTP parameters."""
    texts = split_strings(payload)
    if not texts or len(texts) > 2:
        raise ProtocolError(f"an address of {len(texts)} strings: {excerpt(payload)}")
    address = texts[0].strip(b" \t")
    if address.startswith(b"<") and address.endswith(b">"):
        address = address[1:-1]
    return address, texts[1] if len(texts) > 1 else b""
