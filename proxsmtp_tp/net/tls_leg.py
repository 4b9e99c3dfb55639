"""One side of a connection in TLS: it stands between the plain transport and the connection.

To the connection a leg is the side's transport: what it writes is encrypted. To the transport it is the owner: what the
peer sends is decrypted, and given to the connection as if it had come in clear. A FIN, pausing, resets and the flow of
writes stay those of the plain transport.

Muted    a side that expects TLS and has none yet: nothing is written to it
Leg      a side with a TLS stream, from its handshake on; those of a connection are in `tls_sides`

What happens for each record is done with few calls, and no decorator: a message has 16 records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.net.tls_stream import End, TlsStreamError

if TYPE_CHECKING:
    import asyncio

    from proxsmtp_tp.net.tls_stream import TlsStream


class Muted:
    """The transport of a side that expects TLS. A line of SMTP in clear must not get out, so `write` does nothing."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport

    def write(self, _data: bytes) -> None:
        """Nothing."""

    def write_eof(self) -> None:
        """Send no more."""
        if not self.transport.is_closing():
            self.transport.write_eof()

    def close(self) -> None:
        """Close after everything was sent."""
        self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()

    def is_closing(self) -> bool:
        """Whether the transport is being closed."""
        return bool(self.transport.is_closing())

    def pause_reading(self) -> None:
        """Do not read the peer."""
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read the peer again."""
        self.transport.resume_reading()


class Leg(Muted):
    """A side with TLS. `start` sends our ClientHello, or takes the client's. What happens goes to the methods that a
    subclass has: `plain`, `finished`, `handshaken`, `broken`, `failed`.
    """

    def __init__(self, transport: Any, stream: TlsStream, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(transport)
        self.stream = stream
        self._loop = loop
        self._waiting = b""
        """Octets of the peer that came while the leg is paused, or has complete records left."""
        self._paused = False
        self._reading: bool | None = None
        """Whether the transport was told to read, or not to; None: nothing yet."""
        self._continuing = False
        self._silent = False
        """Our FIN is sent: the engine's answers to what the peer still sends (RFC 8446 section 4.6.3) are dropped."""
        self._over = False
        """The owner knows that the peer sends no more, or that TLS has failed."""

    def plain(self, data: bytes) -> None:
        """The peer sent these octets in TLS."""
        raise NotImplementedError

    def finished(self, *, clean: bool) -> None:
        """The peer sends no more; `clean`: it said so in TLS. Otherwise anybody may have cut the connection."""
        raise NotImplementedError

    def handshaken(self) -> None:
        """The handshake is complete."""
        raise NotImplementedError

    def broken(self, reason: str, *, rejected: bool) -> None:
        """TLS has failed, in the handshake or later: nothing more can be said or heard."""
        raise NotImplementedError

    def failed(self, error: Exception) -> None:
        """A bug: end the connection."""
        raise NotImplementedError

    @callback
    def start(self, data: bytes = b"") -> None:
        """Begin the handshake; `data` is what the peer has sent already."""
        self._flush()
        if data:
            self._take(data)

    # The connection writes.

    def write(self, data: bytes) -> None:
        """Encrypt and send. Dropped before the end of the handshake."""
        if self.stream.handshaking:
            return
        try:
            self.stream.write(data)
        except TlsStreamError as error:
            self._broken(error.reason, rejected=error.certificate_rejected)
        else:
            self._flush()

    def write_eof(self) -> None:
        """Send no more: a close_notify, then a FIN."""
        self._say_goodbye()
        self._silent = True
        super().write_eof()

    def close(self) -> None:
        """Close after everything was sent, with a close_notify."""
        self._say_goodbye()
        self.transport.close()

    def _say_goodbye(self) -> None:
        self.stream.close_notify()
        self._flush()

    def _flush(self) -> None:
        data = self.stream.to_send()
        if data and not self._silent and not self.transport.is_closing():
            self.transport.write(data)

    def pause_reading(self) -> None:
        """Do not read the peer. What has come already waits."""
        self._paused = True
        self._read_or_wait()

    def resume_reading(self) -> None:
        """Read the peer again."""
        self._paused = False
        if self._left():
            self._go_on_soon()
        self._read_or_wait()

    # The peer sends.

    def received(self, data: bytes) -> None:
        """Octets from the transport."""
        try:  # without the decorator `callback`, as in `Connection.feed`
            if self._paused or self._left():
                self._waiting += data
            else:
                self._take(data)
        except Exception as error:  # noqa: BLE001  (a bug must cost one connection, not the worker)
            self.failed(error)

    def _left(self) -> bool:
        return bool(self._waiting) or self.stream.more

    @callback
    def fin(self) -> None:
        """The transport has read a FIN."""
        self.stream.eof()
        if not self._left():
            self._look_for_the_end()

    def _take(self, data: bytes) -> None:
        """Decrypt, as much as one turn of the loop may (`TlsStream.receive`)."""
        if self._over:
            return
        began = self.stream.handshaking
        try:
            plain = self.stream.receive(data)
        except TlsStreamError as error:
            self._broken(error.reason, rejected=error.certificate_rejected)
            return
        self._flush()
        if began and not self.stream.handshaking:
            self.handshaken()
        if plain:
            self.plain(plain)
        if self._left():
            self._go_on_soon()
        else:
            self._look_for_the_end()
        self._read_or_wait()

    def _look_for_the_end(self) -> None:
        end = self.stream.end
        if end is None or self._over:
            return
        if self.stream.handshaking:
            self._broken("the connection was closed within the handshake")
        else:
            self._over = True
            self.finished(clean=end is End.CLEAN)

    def _go_on_soon(self) -> None:
        if not self._continuing:
            self._continuing = True
            self._loop.call_soon(self._go_on)

    @callback
    def _go_on(self) -> None:
        """Other connections had their turn: take what is left."""
        self._continuing = False
        if not self._paused and self._left():
            data, self._waiting = self._waiting, b""
            self._take(data)

    def _read_or_wait(self) -> None:
        """The transport is read while nothing is left, and the connection wants it."""
        wanted = not (self._paused or self._left())
        if wanted is self._reading or self.transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def _broken(self, reason: str, *, rejected: bool = False) -> None:
        if self._over:
            return
        self._over = True
        self._flush()  # our alert
        self._waiting = b""
        self.broken(reason, rejected=rejected)
