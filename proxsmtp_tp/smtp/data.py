"""The message between DATA and the final dot: line ends, dots, end of data (RFC 5321 sections 2.3.8, 4.1.1.4, 4.5.2).

wire   the form in the SMTP stream: dots stuffed, ended by CR LF . CR LF
text   the message itself: no dot-stuffing, every line ended by CRLF

Guarantees, whatever the chunking: only CR LF . CR LF (or . CR LF at the very start) ends data; text has no
bare CR or LF; no server that takes a bare LF or CR for a line end, drops NULs or stops at them, sees an end
of data in encoded wire before the last three octets; a clean, properly stuffed message is byte-identical
after decoding and encoding.

Changed, in addition to bare newlines: NULs between a line's start and a dot are dropped (a lone dot after NULs has no
encoding that is safe both for servers that drop NULs and for servers that stop at them). A run of CRs counts as at most
RUN_LIMIT, and so does a run of NULs at a line's start. The RFC allows neither in a text line.

Speed: decoding scans a chunk twice in C, and so does encoding; a relay scans it twice in all, and a chunk without any
dot, such as base64, once (`in` with one octet is memchr, which costs next to nothing). As a pattern, `rb"\\n\\."` is
twice as fast as bytes.find; split and join are faster than replace (measured on CPython 3.11).
"""

from __future__ import annotations

import io
import re
from typing import Final

from proxsmtp_tp.smtp.buffers import CR, DOT, NUL

END_OF_DATA: Final = b".\r\n"
"""The last line of wire."""
RUN_LIMIT: Final = 1000
"""Octets that are kept back at most: CRs that may belong to one line end, and NULs at a line's start.

It is the limit of a text line in RFC 5321 section 4.5.3.1.6.
"""

_STUFFED: Final = re.compile(rb"\r\n\.")
_DOTTED: Final = re.compile(rb"\n\.")
# The look-behinds make these linear: they prevent a second attempt inside a run.
_CR_RUN_LF: Final = re.compile(rb"\r(?<!\r\r)\r*+\n")
_LONG_CR_RUN: Final = re.compile(rb"\r(?<!\r\r)\r{%d,}+" % RUN_LIMIT)
_NULS_DOT: Final = re.compile(rb"\n\0++\.")
_LONG_NUL_RUN: Final = re.compile(rb"(\n\0{%d})\0++" % RUN_LIMIT)


_NEWLINES: Final = io.IncrementalNewlineDecoder(None, translate=False)
"""The universal-newline detector of the standard library finds the kinds of line ends in a text in one scan. It knows
those of all texts since `reset`, so one serves all."""


def _is_clean(text: bytes) -> bool:
    """Whether every line end of a text that does not end in CR is CRLF."""
    _NEWLINES.decode(text.decode("latin-1"))
    found = _NEWLINES.newlines
    if found is None or found == "\r\n":
        return True
    _NEWLINES.reset()
    return False


class Normalizer:
    """Converts any text to text with CRLF line ends.

    Bare LF, bare CR, and a run of CRs before an LF each become one CRLF. `seen`: one of these has come so far.
    """

    __slots__ = ("_run", "seen")

    def __init__(self) -> None:
        self.seen = False
        self._run = 0

    @property
    def keeps_back(self) -> bool:
        """Whether CRs are kept back until the next octets show whether they end a line."""
        return self._run > 0

    def feed(self, text: bytes) -> bytes:
        """Take text in chunks of any size; return what is complete: the same object if nothing had to be changed."""
        if self._run:
            text = b"\r" * self._run + text
            self._run = 0
        if text.endswith(b"\r"):
            kept = text.rstrip(b"\r")
            self._run = min(len(text) - len(kept), RUN_LIMIT)
            text = kept
        if _is_clean(text):
            return text
        self.seen = True
        return _normalised(text)

    def finish(self) -> bytes:
        """The end of the text: return what was kept back."""
        run, self._run = self._run, 0
        if run:
            self.seen = True
        return b"\r\n" * run


class DataDecoder:
    """Converts wire to text. `done` after the end of data; `rest` is what followed it; `size` counts octets of text.

    `plain`: the last returned text has the same octets in the wire, so it can be encoded again without a scan.
    """

    __slots__ = ("_at_line_start", "_kept", "_normalizer", "done", "plain", "rest", "size")

    def __init__(self) -> None:
        self.done = False
        self.plain = False
        self.rest = b""
        self.size = 0
        self._at_line_start = True  # whether `_kept`, or the next octet, comes after a CRLF or at the very start
        self._kept = b""  # CR, or at a line's start: dot, dot CR
        self._normalizer = Normalizer()

    @property
    def bare_newlines(self) -> bool:
        """Whether the wire had a bare CR or LF so far."""
        return self._normalizer.seen

    def feed(self, wire: bytes) -> bytes:
        """Take wire in chunks of any size; return the text that is complete. RuntimeError after the end of data."""
        if self.done:
            raise RuntimeError("data fed after the end of data")
        if self._kept:
            wire = self._kept + wire
        # If a chunk begins with a dot, put the CRLF before it again: then the search has one case instead of two.
        repeated = 2 if self._at_line_start and wire.startswith(b".") else 0
        if repeated:
            wire = b"\r\n" + wire
        dotted = _STUFFED.search(wire) if DOT in wire else None
        stuffed, end = False, -1
        if dotted is not None:
            end = dotted.start()
            if wire[end : end + 5] != b"\r\n.\r\n":  # otherwise it is the end of data: no line before it has a dot
                stuffed = True
                end = wire.find(b"\r\n.\r\n", end)
        if end >= 0:
            self.done = True
            self.rest = wire[end + 5 :]
            body = wire[: end + 2]
        else:
            body = self._without_open_tail(wire)
        # Unstuff before normalising: after a bare newline no new line of the wire begins, so nothing was stuffed there.
        if stuffed:
            body = b"\r\n".join(body.split(b"\r\n."))
        if repeated:
            body = body[2:]
        text = self._normalizer.feed(body)
        self.plain = not stuffed and text is body and NUL not in text
        self.size += len(text)
        return text

    def _without_open_tail(self, wire: bytes) -> bytes:
        """Keep back the end of wire that may be the beginning of an end of data."""
        if wire.endswith(b"\r") or wire.endswith(b"\r\n."):  # noqa: PIE810  (a tuple is slow when compiled)
            tail = 2 if wire.endswith(b"\r\n.\r") else 1
            body, self._kept = wire[:-tail], wire[-tail:]
        else:
            body, self._kept = wire, b""
        if body:
            self._at_line_start = body.endswith(b"\r\n")
        return body


class DataEncoder:
    """Converts text to wire: normalised, dots stuffed, ended by the lone dot."""

    __slots__ = ("_at_line_start", "_normalizer", "_nuls")

    def __init__(self, *, at_line_start: bool = True) -> None:
        """`at_line_start`: no text was before, or its last octet was LF."""
        self._at_line_start = at_line_start
        self._nuls = 0  # kept back at a line's start; then _at_line_start is true
        self._normalizer = Normalizer()

    def feed(self, text: bytes) -> bytes:
        """Take text in chunks of any size; return wire."""
        text = self._normalizer.feed(text)
        return self._stuffed(text) if text else b""

    def feed_plain(self, text: bytes) -> bytes:
        """Like `feed`, but without a scan, for text that a decoder returned as `plain`."""
        if not text or self._nuls or self._normalizer.keeps_back or text.startswith(b"."):
            return self.feed(text)
        self._at_line_start = text.endswith(b"\n")
        return text

    def finish(self) -> bytes:
        """The end of the text: return what was kept back, a line end if the last line has none, and the lone dot."""
        text = self._normalizer.finish()
        wire = self._stuffed(text) if text else b""
        if self._nuls:
            wire += b"\0" * self._nuls
            self._at_line_start = False
        return wire + (END_OF_DATA if self._at_line_start else b"\r\n" + END_OF_DATA)

    def _stuffed(self, text: bytes) -> bytes:
        if self._nuls or NUL in text:
            text = self._without_nuls(text)
            if not text:
                return b""
        stuff_first = self._at_line_start and text.startswith(b".")
        if _DOTTED.search(text):
            text = b"\n..".join(text.split(b"\n."))
        self._at_line_start = text.endswith(b"\n")
        return b"." + text if stuff_first else text

    def _without_nuls(self, text: bytes) -> bytes:
        """Keep NULs back at the start of an unfinished line; drop those between a line's start and a dot."""
        # The octet before the text shows the patterns whether the text begins a line.
        text = (b"\n" if self._at_line_start else b"x") + b"\0" * self._nuls + text
        self._nuls = 0
        kept = text.rstrip(b"\0")
        if kept.endswith(b"\n"):
            self._nuls = min(len(text) - len(kept), RUN_LIMIT)
            text = kept
        text = _NULS_DOT.sub(b"\n.", text)
        return _LONG_NUL_RUN.sub(rb"\1", text)[1:]


class DataRelay:
    """Wire to wire, for a message that is not filtered or changed: a decoder and an encoder that share their scans."""

    __slots__ = ("_at_line_start", "_encoder", "decoder")

    def __init__(self) -> None:
        self.decoder = DataDecoder()
        self._at_line_start = True
        self._encoder: DataEncoder | None = None
        """None: all text until now was plain, so its wire is the same."""

    def feed(self, wire: bytes) -> bytes:
        """Take wire from the client; return wire for the server, up to its lone dot when `decoder.done`."""
        decoder = self.decoder
        text = decoder.feed(wire)
        if self._encoder is None:
            if decoder.plain and not text.startswith(b"."):
                if text:
                    self._at_line_start = text.endswith(b"\n")
                if not decoder.done:
                    return text
                return text + (END_OF_DATA if self._at_line_start else b"\r\n" + END_OF_DATA)
            self._encoder = DataEncoder(at_line_start=self._at_line_start)
        wire = self._encoder.feed_plain(text) if decoder.plain else self._encoder.feed(text)
        return wire + self._encoder.finish() if decoder.done else wire


def _normalised(text: bytes) -> bytes:
    """Write CRLF for each line end of a text that does not end in CR."""
    text = text.replace(b"\r\n", b"\n")
    if CR in text:
        text = _CR_RUN_LF.sub(b"\n", text)
        text = _LONG_CR_RUN.sub(b"\r" * RUN_LIMIT, text)
        text = text.replace(b"\r", b"\n")
    return text.replace(b"\n", b"\r\n")
