"""FilterType smtp: each message is sent to a scanner that speaks SMTP, at the address in FilterCommand.

It works like Postfix's smtpd_proxy_filter, but nothing comes back except replies: the replies are the verdict, and the
message that passes is the client's own. So the message is stored, in TempDirectory if it is large, and sent to the
scanner when it is complete. A scanner that changes mail must be used as OutAddress instead, with its own next hop.

The scanner must discard the mail that it accepts (amavis: $forward_method undef): mail that it delivers arrives twice.

    2xx to the whole message        PASS
    5xx at MAIL or later            REJECT, with the scanner's text on one printable line
    4xx at MAIL or later            TEMPFAIL in the same way; 421 becomes 451, because the client's connection goes on
    anything else                   TEMPFAIL with a text of ours (`scanner_endings`, `endings`)

The first refusal is the verdict, also if it is about one recipient among many, and also if it comes before the scanner
has the whole message. Envelope, XFORWARD and pipelining: `scanner_dialogue`.

FilterTimeout includes connecting and the envelope. FilterProcesses is the number of connections to the scanner; each
carries one message.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import socket
from typing import TYPE_CHECKING

from proxsmtp_tp.config.addresses import InetAddress
from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.filters.endings import Ending
from proxsmtp_tp.filters.judging import Judging
from proxsmtp_tp.filters.scanner_connection import ScannerConnection
from proxsmtp_tp.filters.scanner_dialogue import ScannerDialogue
from proxsmtp_tp.filters.scanner_endings import ScannerEnding, trouble
from proxsmtp_tp.filters.spool import Spool
from proxsmtp_tp.filters.verdict import Action

if TYPE_CHECKING:
    from proxsmtp_tp.config.addresses import Address
    from proxsmtp_tp.filters.interface import FilterOwner, FilterRequest
    from proxsmtp_tp.filters.limit import ProcessLimit
    from proxsmtp_tp.filters.mail import Reader
    from proxsmtp_tp.filters.spool_space import SpoolSpace
    from proxsmtp_tp.filters.verdict import Verdict

log = logging.getLogger(__name__)

CHUNK = 64 * 1024
"""Octets written at a time, one chunk in a loop iteration."""


class SmtpFilter:
    """Sends messages to the scanner at `address`, at most `limit` at once; `timeout` is FilterTimeout in seconds.

    Raises ValueError for an address without a host.
    """

    def __init__(self, address: Address, timeout: float, space: SpoolSpace, limit: ProcessLimit) -> None:
        if isinstance(address, InetAddress) and address.port_only:
            raise ValueError(f"FilterType smtp: no host before port {address.port}")
        self.address = address
        self.timeout = timeout
        self.space = space
        self.limit = limit
        self.own_name = _own_name()
        self._connections: set[ScannerConnection] = set()

    @property
    def running(self) -> int:
        """How many connections to the scanner there are, including those that are being made or closed."""
        return self.limit.taken

    @property
    def waiting(self) -> int:
        """How many messages wait for a free connection."""
        return self.limit.waiting

    def start(self, request: FilterRequest, owner: FilterOwner) -> ScanRun:
        """Begin to judge a message. Call it inside a running event loop."""
        return ScanRun(self, request, owner)

    def start_stored(self, request: FilterRequest, owner: FilterOwner, message: Reader) -> ScanRun:
        """The same for a message that is stored already: `finish` is the next call."""
        return ScanRun(self, request, owner, message)

    def close(self) -> None:
        """The worker ends: close all connections at once, also those that wait for the reply to QUIT."""
        self.limit.close()
        for connection in list(self._connections):
            connection.abort()

    def connect(self, run: ScanRun) -> ScannerConnection:
        """Connect for a run that has a place of `limit`; the place is given back when the connection has ended."""

        def freed() -> None:
            self._connections.discard(connection)
            self.limit.leave(run.client)

        try:
            connection = ScannerConnection(self.address, self.timeout, run, freed)
        except Exception:
            self.limit.leave(run.client)
            raise
        self._connections.add(connection)
        return connection


class ScanRun(Judging):
    """A FilterRun; the owner of its connection to the scanner."""

    def __init__(
        self, parent: SmtpFilter, request: FilterRequest, owner: FilterOwner, stored: Reader | None = None
    ) -> None:
        self._text: Spool | Reader = stored or Spool(parent.space)
        super().__init__(parent.limit, parent.timeout, request, owner, self._text)
        self._parent = parent
        self._dialogue = ScannerDialogue(request, parent.own_name)
        self._connection: ScannerConnection | None = None

    def read(self, size: int) -> bytes:
        """FilterRun. Raises OSError if the message cannot be read back completely."""
        return self._text.read(size)

    def take_output(self) -> None:
        """For a chain: the message passes as it was."""

    @property
    def client(self) -> str:
        """Whose message it is."""
        return self._request.client

    # Judging.

    def _start(self) -> None:
        self._connection = self._parent.connect(self)

    def _out_of_time(self) -> None:
        self._trouble(Ending.TIMED_OUT, f"from the scanner, to {self._dialogue.waiting_for}")

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._dialogue.between_commands and not self._aborted:
            connection.quit()
        else:
            connection.abort()

    # ScannerOwner.

    def scanner_data(self, data: bytes) -> None:
        """ScannerOwner."""
        if self._connection is None:
            return
        answer = self._dialogue.feed(data)
        verdict = self._dialogue.verdict
        if verdict is not None:
            if verdict.action is Action.PASS and self._connection.unsent:
                verdict = trouble(ScannerEnding.OUT_OF_STEP, "it accepted the message before its end was sent")
            self._judged(verdict)
            return
        self._connection.write(answer)
        self._feed()

    def scanner_flow(self) -> None:
        """ScannerOwner."""
        if self._connection is not None and not self._connection.stalled:
            self._clock.start()
            self._feed()

    def scanner_unreachable(self, reason: str) -> None:
        """ScannerOwner."""
        self._settle(trouble(ScannerEnding.UNREACHABLE, reason))

    def scanner_lost(self, reason: str) -> None:
        """ScannerOwner."""
        self._dialogue.closed(reason)
        if self._dialogue.verdict is not None:
            self._judged(self._dialogue.verdict)

    # The message is sent to the scanner.

    @callback
    def _feed(self) -> None:
        """Send the next chunk of the message, if the scanner reads it."""
        connection = self._connection
        if connection is None or not self._dialogue.flowing or connection.stalled:
            return
        try:
            chunk = self._text.read(CHUNK)
        except OSError as error:
            self._not_stored(error)
            return
        connection.write(self._dialogue.text(chunk))
        if not self._text.left:
            connection.write(self._dialogue.finish())
        elif not connection.stalled:
            self._loop.call_soon(self._feed)

    def _judged(self, verdict: Verdict) -> None:
        if self._dialogue.remark:
            request = self._request
            log.warning("%s: %s, id=%s", request.connection, self._dialogue.remark, request.trace_id)
        if verdict.action is not Action.PASS:
            self._settle(verdict)
            return
        if self._kept(self._text.complete):
            self._settle(dataclasses.replace(verdict, size=self._text.size))


def _own_name() -> bytes:
    """Our name in EHLO (RFC 5321 section 4.1.1.1): the name of this host, or localhost if that is no valid name."""
    name = socket.gethostname()
    return name.encode() if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,254}", name) else b"localhost"
