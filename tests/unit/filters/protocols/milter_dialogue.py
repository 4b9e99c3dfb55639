"""A milter dialogue from its first packet to its outcome."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.protocols.milter import MilterDialogue
from tests.unit.filters.protocols.milter_peer import Peer, message, packet

if TYPE_CHECKING:
    from proxsmtp_tp.filters.protocols.milter_message import Outcome

ALL_EVENTS = b"OCHMRRTLLLNBE"
SILENT = 0xFF080 & ~0x20000 | 0x40000
ACCEPT, REJECT, TEMPFAIL, DISCARD, SKIP, PROGRESS = (packet(code) for code in (b"a", b"r", b"t", b"d", b"s", b"p"))
INDEX = struct.Struct(">I").pack


def dialogue(**given: object) -> MilterDialogue:
    return MilterDialogue(message(**given))


def judged(peer: Peer, body: bytes = b"Hello\r\n", chunk: int = 4096, **given: object) -> Outcome:
    return peer.run(dialogue(**given), body, chunk)


def at_end(*packets: bytes, **given: object) -> Outcome:
    """The outcome if the filter says this after the end of the message."""
    return Peer({b"E": [b"".join(packets)]}).run(dialogue(**given))
