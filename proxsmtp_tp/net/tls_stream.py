"""One TLS leg without I/O: bytes of the transport go in, plain text comes out, and the reverse.

The transport stays plain, so half-close, pausing, deadlines and resets work as without TLS. A leg is used so:

    stream = TlsStream(context, Side.CLIENT, name)  # we are the TLS server; with Side.SERVER the TLS client
    transport.write(stream.to_send())  # the ClientHello; with Side.CLIENT nothing yet
    plain = stream.receive(data)  # what the transport has read; with Side.CLIENT first `ClientHello.octets`
    transport.write(stream.to_send())  # after each receive, write and close_notify, and after TlsStreamError

- While `handshaking`, `receive` returns b"". The call that ends the handshake returns b"", too, so that the peer can
  be verified before anything that it sent is read; what already came after it waits (`more`).
- `more`: complete records are left. Call `receive(b"")` again after other connections had their turn, and do not read
  the transport until then. Each call handles RECORDS_PER_CALL records or OCTETS_PER_CALL octets at most.
- `eof()`: the transport has read a FIN. `end` then tells how the peer's stream ended: CLEAN (it sent close_notify) or
  TRUNCATED (anybody on the path can send a FIN: it is never an end of message). Look at `end` after each `receive` and
  after `eof`. After a CLEAN end one can still write.
- `TlsStreamError` ends the stream. Our alert, if there is one, is in `to_send()`. What came before the fault is given
  out first: then the error is raised by the next `receive` (`more` is true).
- `write` after an error or `close_notify` is dropped, as by a transport that is being closed.
"""

from __future__ import annotations

import re
import ssl
import sys
from contextlib import suppress
from enum import Enum
from typing import Any, Final, cast

from proxsmtp_tp.tls.alerts import CERTIFICATE_REJECTED, Alert, meaning, received_alert
from proxsmtp_tp.tls.facts import Side, TlsFacts, Verified

RECORDS_PER_CALL: Final = 64
"""A record of one octet costs about 3 microseconds, a KeyUpdate 50: at most about 3 milliseconds in a row."""
OCTETS_PER_CALL: Final = 128 * 1024
"""Received octets in one call: less than a millisecond."""
HANDSHAKE_RECORDS_MAX: Final = 1024
"""A handshake has about 10 records. Some clients cut their ClientHello into many small ones."""
HANDSHAKE_OCTETS_MAX: Final = 256 * 1024
"""OpenSSL takes certificate chains of up to 100 KiB, and we ClientHellos of up to 64 KiB."""
SILENT_MAX: Final = 64
"""Records without application data (tickets, KeyUpdates, empty records, renegotiation) after the handshake. A peer
sends a few tickets and no KeyUpdate before 2^24 records (RFC 8446 section 5.5). Each record with data allows a bit
more:
"""
DATA_PER_SILENT: Final = 32
"""Records with data for each further record without."""

_PLAIN_MAX: Final = 16384
"""The most that one record holds (RFC 8446 section 5.1)."""
_WRITE_PIECE: Final = 8192
"""Plain text of a record that we write. Smaller than the most, because OpenSSL's buffer keeps its largest size for
life.
"""
_HEADER: Final = 5
_DER: Final = 2
"""_ssl.ENCODING_DER"""
_RECORD_MAX: Final = _PLAIN_MAX + 2048
_RECORD_TYPES: Final = (20, 21, 22, 23)
_APPLICATION_DATA: Final = 23


class End(Enum):
    """How the stream of the peer has ended."""

    CLEAN = "clean"
    """By close_notify."""
    TRUNCATED = "truncated"
    """By a FIN without close_notify."""


class TlsStreamError(Exception):
    """The stream is over. `reason` is a sentence for the log; `alert` the alert of the peer or None; `str()` is the
    reason.
    """

    def __init__(self, reason: str, side: Side, alert: Alert | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.side = side
        self.alert = alert

    @property
    def certificate_rejected(self) -> bool:
        """Whether the client does not accept our certificate."""
        return self.side is Side.CLIENT and self.alert in CERTIFICATE_REJECTED


class TlsStream:
    """One leg. See the module."""

    __slots__ = (
        "_closed",
        "_data_records",
        "_eof",
        "_fault",
        "_handshake_octets",
        "_handshake_records",
        "_incoming",
        "_outgoing",
        "_raw",
        "_sent",
        "_side",
        "_silent",
        "_silent_records",
        "_tls",
        "handshaking",
        "more",
        "server_name",
    )

    def __init__(self, context: ssl.SSLContext, side: Side, server_name: str = "") -> None:
        """`server_name`: for Side.SERVER the one in our hello; for Side.CLIENT that of the client's, only for `facts`.
        "": none.

        TlsStreamError: the name cannot be sent.
        """
        self._side = side
        self.server_name = server_name
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        ours = side is Side.CLIENT
        try:
            self._tls = context.wrap_bio(
                self._incoming, self._outgoing, server_side=ours, server_hostname=None if ours else server_name or None
            )
        except UnicodeError as error:
            raise TlsStreamError(f"the name {server_name!r} cannot be sent as a server name", side) from error
        self.handshaking = True
        """Whether the handshake is not finished."""
        self.more = False
        """Whether `receive(b"")` should be called again."""
        self._raw = b""
        self._sent: list[bytes] = []
        self._fault: tuple[str, Alert | None] | None = None
        self._closed = self._eof = self._silent = False
        self._handshake_records = self._handshake_octets = 0
        self._data_records = self._silent_records = 0
        if not ours:
            self._shake()
            self._raise_fault()

    # Incoming.

    def receive(self, data: bytes) -> bytes:
        """Bytes of the transport; returns plain text. TlsStreamError: see the module."""
        if _is_one_record(data) and not (self.handshaking or self.more or self._raw or self._closed or self._fault):
            self._incoming.write(data)  # nearly always, so without what the rest needs
            only = self._read(len(data))
            self._raise_fault()
            return only
        plain: list[bytes] = []
        if self._fault is None and not self._closed:  # what comes after close_notify is ignored (RFC 8446 section 6.1)
            if self._raw:
                data = self._raw + data
            self._raw = data[self._receive(data, plain) :]
        if self._fault is not None:
            self.more = bool(plain)
            if not plain:
                self._raise_fault()
        return plain[0] if len(plain) == 1 else b"".join(plain)

    def _receive(self, data: bytes, plain: list[bytes]) -> int:
        """Handle complete records, add their plain text, and return how many octets are done."""
        view = memoryview(data)
        at = records = 0
        while length := _next_record(data, at):
            if records == RECORDS_PER_CALL or at >= OCTETS_PER_CALL:
                break
            self._incoming.write(view[at : at + length])
            at += length
            records += 1
            if self.handshaking:
                self._count_handshake(length)
                self._shake()
                if not self.handshaking:
                    length = _next_record(data, at)
                    break
            elif piece := self._read(length):
                plain.append(piece)
            if self._closed or self._fault is not None:
                self.more = False
                return len(data)
        self.more = length > 0
        return at

    def eof(self) -> None:
        """The transport has read a FIN: nothing more comes."""
        self._eof = True

    @property
    def end(self) -> End | None:
        """How the stream of the peer has ended; None: it has not, or `more` is left."""
        if self._closed:
            return End.CLEAN
        return End.TRUNCATED if self._eof and not self.more else None

    def _count_handshake(self, octets: int) -> None:
        self._handshake_records += 1
        self._handshake_octets += octets
        if self._handshake_records > HANDSHAKE_RECORDS_MAX or self._handshake_octets > HANDSHAKE_OCTETS_MAX:
            self._fault = f"the TLS handshake of the {self._side.value} is too long", None

    def _shake(self) -> None:
        """One step of the handshake."""
        if self._fault is not None:
            return
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLZeroReturnError:
            self._fault = f"the {self._side.value} closed TLS within the handshake", Alert.CLOSE_NOTIFY
        except ssl.SSLError as error:
            self._fault = self._explained(error)
        else:
            self.handshaking = False

    def _read(self, length: int) -> bytes:
        """The application data of a record of this length. b"": it has none, or it was close_notify, or a fault."""
        data = b""
        try:
            data = self._tls.read(length)  # it holds less than that; a buffer of 16 KiB takes longer to make
        except ssl.SSLWantReadError:
            self._silent_records += 1
            if self._silent_records > SILENT_MAX + self._data_records // DATA_PER_SILENT:
                self._fault = f"the {self._side.value} sends too many TLS records without data", None
            return b""
        except ssl.SSLZeroReturnError:
            pass
        except ssl.SSLError as error:
            self._fault = self._explained(error)
            return b""
        if data:
            self._data_records += 1
        else:
            self._closed = True
        return data

    # Outgoing.

    def write(self, plain: bytes) -> None:
        """Encrypt application data. Not before the handshake is finished."""
        if self._silent or self._fault is not None:
            return
        try:
            if len(plain) <= _WRITE_PIECE:
                self._tls.write(plain)
            else:
                self._write_pieces(plain)
        except ssl.SSLError as error:
            self._fault = self._explained(error)
        self._raise_fault()

    def _write_pieces(self, plain: bytes) -> None:
        for at in range(0, len(plain), _WRITE_PIECE):
            self._tls.write(plain[at : at + _WRITE_PIECE])
            self._sent.append(self._outgoing.read())

    def close_notify(self) -> None:
        """End our half of the stream; what the peer sends is still read. Within a handshake nothing is sent."""
        if not (self._silent or self._fault is not None or self.handshaking):
            with suppress(ssl.SSLError):  # the peer has not answered it: nobody waits for that
                self._tls.unwrap()
        self._silent = True

    def to_send(self) -> bytes:
        """What is to be written to the transport now; b"": nothing. Each octet is returned once."""
        last = self._outgoing.read() if self._outgoing.pending else b""
        if not self._sent:
            return last
        self._sent.append(last)
        data = b"".join(self._sent)
        self._sent.clear()
        return data

    # What is known of the leg.

    def facts(self, verified: Verified = Verified.NO) -> TlsFacts:
        """Version, cipher and server name, after the handshake."""
        cipher = self._tls.cipher()
        return TlsFacts(self._tls.version() or "", cipher[0] if cipher else "", self.server_name, verified)

    def chain(self) -> list[bytes]:
        """The certificates that the server sent, as DER, its own first; not verified. Only for Side.SERVER."""
        if sys.version_info >= (3, 13):
            return list(self._tls.get_unverified_chain())
        inner = cast(Any, self._tls)._sslobj  # noqa: SLF001 - the public name is of Python 3.13
        return [certificate.public_bytes(_DER) for certificate in inner.get_unverified_chain() or ()]

    def _raise_fault(self) -> None:
        if self._fault is not None:
            reason, alert = self._fault
            raise TlsStreamError(reason, self._side, alert)

    def _explained(self, error: ssl.SSLError) -> tuple[str, Alert | None]:
        """What went wrong in words, and the alert if the peer sent one."""
        named: str | None = getattr(error, "reason", None)  # None, whatever its type says, if OpenSSL has no name
        reason = named or _reason_in(error)
        if (alert := received_alert(reason)) is not None:
            return meaning(alert, self._side), alert
        return reason.lower().replace("_", " "), None


def _is_one_record(data: bytes) -> bool:
    """Whether this is exactly one record of application data; with TLS 1.3, all after the handshake look so."""
    length = len(data) - _HEADER
    return 0 < length <= _RECORD_MAX and data[0] == _APPLICATION_DATA and data[1] == 3 and _length(data, 0) == length


def _length(data: bytes, at: int) -> int:
    """What the header of a record at this place says."""
    return data[at + 3] << 8 | data[at + 4]


def _next_record(data: bytes, at: int) -> int:
    """Octets of the record at this place; 0: it is not complete."""
    rest = len(data) - at
    if rest < _HEADER:
        return 0
    length = _length(data, at)
    if data[at] not in _RECORD_TYPES or data[at + 1] != 3 or length > _RECORD_MAX:
        return rest  # no TLS: the engine gets it at once, and names the fault
    return _HEADER + length if rest >= _HEADER + length else 0


_TEXT = re.compile(r"(?:\[.*?\] )?(.*?)(?: \(_ssl\.c:\d+\))?")


def _reason_in(error: ssl.SSLError) -> str:
    """The reason out of the text: Python knows not every name, such as that of the alert 120."""
    match = _TEXT.fullmatch(str(error.args[-1]))
    return match.group(1).upper().replace(" ", "_") if match else ""
