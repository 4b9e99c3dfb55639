"""Milter option negotiation: what we offer, and what a filter chose.

We offer protocol version 6 (sendmail 8.14), all actions, and all steps except RCPT_REJ: a recipient that the server
has refused is not shown. All actions, because libmilter ends a filter that needs one that is not offered, even if the
filter is configured never to use it. A filter may choose an older version; then it gets no event that is newer.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Final

from proxsmtp_tp.filters.protocols.errors import ProtocolError
from proxsmtp_tp.filters.protocols.milter_packets import Command, packet

VERSION: Final = 6
OLDEST_VERSION: Final = 2


class Actions(IntFlag):
    """What a filter may do to a message (SMFIF_*)."""

    ADD_HEADERS = 0x01
    CHANGE_BODY = 0x02
    ADD_RECIPIENTS = 0x04
    DELETE_RECIPIENTS = 0x08
    CHANGE_HEADERS = 0x10
    QUARANTINE = 0x20
    CHANGE_SENDER = 0x40
    ADD_RECIPIENTS_PARAMETERS = 0x80
    SET_MACROS = 0x100


class Steps(IntFlag):
    """Which events a filter does not want (NO_*), does not answer (SILENT_*), and how it wants them (SMFIP_*)."""

    NO_CONNECT = 0x01
    NO_HELO = 0x02
    NO_MAIL = 0x04
    NO_RCPT = 0x08
    NO_BODY = 0x10
    NO_HEADERS = 0x20
    NO_END_OF_HEADER = 0x40
    SILENT_HEADERS = 0x80
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    SKIP = 0x400
    REJECTED_RECIPIENTS = 0x800
    SILENT_CONNECT = 0x1000
    SILENT_HELO = 0x2000
    SILENT_MAIL = 0x4000
    SILENT_RCPT = 0x8000
    SILENT_DATA = 0x10000
    SILENT_UNKNOWN = 0x20000
    SILENT_END_OF_HEADER = 0x40000
    SILENT_BODY = 0x80000
    LEADING_SPACE = 0x100000


class Stage(IntEnum):
    """The stages for which a filter can name the macros that it wants (SMFIM_*)."""

    CONNECT = 0
    HELO = 1
    MAIL = 2
    RCPT = 3
    DATA = 4
    END = 5
    END_OF_HEADER = 6


ALL_ACTIONS: Final = Actions(0x1FF)
OFFERED_STEPS: Final = Steps(0x1FFFFF) & ~Steps.REJECTED_RECIPIENTS

_SINCE: Final = {2: Steps(0x7F), 3: Steps(0x17F), 4: Steps(0x37F), 5: Steps(0x37F), 6: OFFERED_STEPS}
"""The steps of each version: SILENT_HEADERS came with version 6, though its bit lies between older ones."""

_THREE = struct.Struct(">III")
_ONE = struct.Struct(">I")

OFFER: Final = packet(Command.OPTIONS, _THREE.pack(VERSION, ALL_ACTIONS, OFFERED_STEPS))
"""The first packet of every connection."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a filter chose. `macros`: the names that it wants at a stage, in place of the default list."""

    version: int
    actions: Actions
    steps: Steps
    macros: dict[Stage, tuple[bytes, ...]] = field(default_factory=dict)


@functools.lru_cache(16)
def parse_options(payload: bytes) -> Options:
    """Read the answer to OFFER. Raises ProtocolError.

    Bits that we did not offer are ignored, because rspamd answers with all bits that it knows: none of them asks us to
    do something that the filter could not do without. A filter answers each message's offer with the same octets, which
    are read once.
    """
    if len(payload) < _THREE.size:
        raise ProtocolError(f"options of {len(payload)} octets")
    version, actions, steps = _THREE.unpack_from(payload)
    if not OLDEST_VERSION <= version <= VERSION:
        raise ProtocolError(f"milter protocol version {version}, not {OLDEST_VERSION} to {VERSION}")
    chosen = Steps(steps & _SINCE[version])
    return Options(version, Actions(actions & ALL_ACTIONS), chosen, _macro_lists(payload[_THREE.size :]))


def _macro_lists(payload: bytes) -> dict[Stage, tuple[bytes, ...]]:
    lists: dict[Stage, tuple[bytes, ...]] = {}
    while payload:
        end = payload.find(b"\0", _ONE.size)
        if end < 0:
            raise ProtocolError("a list of macros without its end (NUL)")
        (stage,) = _ONE.unpack_from(payload)
        try:
            lists[Stage(stage)] = tuple(map(macro_name, payload[_ONE.size : end].replace(b",", b" ").split()))
        except ValueError as error:
            raise ProtocolError(f"a list of macros for stage {stage}") from error
        payload = payload[end + 1 :]
    return lists


def macro_name(name: bytes) -> bytes:
    """A macro's name as it is sent: one letter is bare, a longer name has braces."""
    bare = name.removeprefix(b"{").removesuffix(b"}")
    return bare if len(bare) == 1 else b"{%s}" % bare
