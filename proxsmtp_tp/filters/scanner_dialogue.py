"""The dialogue with a scanner that speaks SMTP, without a socket: its bytes in, our bytes and a verdict out (RFC 5321).

    greeting, EHLO (HELO where that is refused), XFORWARD ADDR and HELO, MAIL, RCPT for each recipient, DATA, text, QUIT

PIPELINING is used where it is offered: then everything from XFORWARD to DATA is one group (RFC 2920; XFORWARD_README of
Postfix allows XFORWARD in it). A refused XFORWARD is only logged. The first refusal from MAIL on is the verdict: the
server has already accepted these recipients, and a message has only one verdict.

Guarantees: every reply is matched to the command that it answers; a reply that answers no command, or has an unexpected
code, is OUT_OF_STEP. PASS needs 354 to DATA, the end of the text sent, and then a 2xx. After a verdict nothing is sent.

Of the client's ESMTP parameters only SMTPUTF8 and BODY=8BITMIME are passed on, each where the scanner offers it.
"""

from __future__ import annotations

import re
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.scanner_endings import ScannerEnding, passed, refused, shown, trouble
from proxsmtp_tp.smtp import xtext
from proxsmtp_tp.smtp.capabilities import NO_CAPABILITIES, Capabilities, rewrite_ehlo
from proxsmtp_tp.smtp.data import DataEncoder
from proxsmtp_tp.smtp.replies import ReplyError, ReplyReader
from proxsmtp_tp.telemetry.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.filters.interface import FilterRequest
    from proxsmtp_tp.filters.verdict import Verdict
    from proxsmtp_tp.smtp.replies import Reply

XFORWARD_LIMIT = 480
"""Octets of an XFORWARD value: with verb and name it fits into a command line (512, RFC 5321 section 4.5.3.1.4)."""

QUIT = b"QUIT\r\n"

_LINE_BREAKING = re.compile(rb"[\r\n\0]")
_NOT_UNDERSTOOD = frozenset({500, 502, 503, 504})
_PASSED_ON = ((b"BODY=8BITMIME", b"8BITMIME"), (b"SMTPUTF8", b"SMTPUTF8"))
"""Parameters of MAIL that are passed on, each with the keyword that offers it (RFC 6152, RFC 6531)."""


class Step(Enum):
    """What a reply answers, as the log names it."""

    GREETING = "the connection"
    EHLO = "EHLO"
    HELO = "HELO"
    XFORWARD = "XFORWARD"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    MESSAGE = "the message"


class ScannerDialogue:
    """The dialogue about one message. `verdict` is None until it is known; a PASS has no message size.

    `flowing`: the scanner accepts text. `remark`: an additional text for the log, or "".
    """

    def __init__(self, request: FilterRequest, own_name: bytes) -> None:
        self.verdict: Verdict | None = None
        self.flowing = False
        self.remark = ""
        self._request = request
        self._own_name = own_name
        self._replies = ReplyReader()
        self._encoder = DataEncoder()
        self._expected = deque([Step.GREETING])
        self._commands: deque[tuple[Step, bytes]] = deque()
        self._pipelining = False
        self._in_step = True

    @property
    def waiting_for(self) -> str:
        """What the next reply answers, for a log."""
        return self._expected[0].value if self._expected else "space for the message"

    @property
    def between_commands(self) -> bool:
        """Whether no reply is pending and no text is being sent, so that QUIT may be sent."""
        return self._in_step and not self._expected and not self.flowing

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the scanner, in chunks of any size; return the bytes to send to it."""
        self._replies.feed(data)
        pending = len(self._expected)  # these bytes cannot answer commands that are sent because of them
        answer = b""
        try:
            while self.verdict is None and (reply := self._replies.next()) is not None:
                answer += self._take(reply) if pending else self._unasked(reply)
                pending = max(pending - 1, 0)
        except ReplyError as error:
            self._out_of_step(error)
        return answer

    def text(self, text: bytes) -> bytes:
        """Encode message text (CRLF line ends, not dot-stuffed, chunks of any size) for the scanner; only while
        `flowing`.
        """
        return self._encoder.feed(text)

    def finish(self) -> bytes:
        """The message is complete: return its end, encoded for the scanner; only while `flowing`."""
        self.flowing = False
        self._expected.append(Step.MESSAGE)
        return self._encoder.finish()

    def closed(self, reason: str) -> None:
        """The connection was lost. After a verdict this has no effect."""
        if self.verdict is None:
            self._end(trouble(ScannerEnding.LOST, f"{reason}, while waiting for: {self.waiting_for}"))

    # Replies.

    def _take(self, reply: Reply) -> bytes:
        step = self._expected.popleft()
        if step in {Step.GREETING, Step.EHLO, Step.HELO}:
            return self._introduced(step, reply)
        if step is Step.XFORWARD:
            self._forwarded(reply)
        elif reply.code // 100 == (3 if step is Step.DATA else 2):
            self._accepted(step, reply)
        else:
            self._refused(step, reply)
        return b"" if self.verdict else self._advance()

    def _introduced(self, step: Step, reply: Reply) -> bytes:
        """Handle a reply up to EHLO or HELO: a refusal here is not about the message."""
        if step is Step.EHLO and reply.code >= 500:
            return self._say(Step.HELO, b"HELO " + self._own_name)
        if not reply.positive:
            if not reply.negative:
                return self._out_of_step(_answered(step, reply))
            return self._end(trouble(ScannerEnding.UNWILLING, _answered(step, reply)))
        if step is Step.GREETING:
            return self._say(Step.EHLO, b"EHLO " + self._own_name)
        offered = rewrite_ehlo(reply, hide_name=None)[1] if step is Step.EHLO else NO_CAPABILITIES
        self._pipelining = offered.pipelining
        if not self._sendable():
            return self._end(trouble(ScannerEnding.NOT_SENDABLE))
        self._commands.extend(self._envelope(offered))
        return self._advance()

    def _forwarded(self, reply: Reply) -> None:
        """Handle the reply to XFORWARD: the scanner can judge without it."""
        if reply.intermediate or reply.code == 421:
            self._refused(Step.XFORWARD, reply)
        elif reply.negative and not self.remark:
            self.remark = f"the scanner refuses XFORWARD, which it offers: {quoted(shown(reply))}"

    def _accepted(self, step: Step, reply: Reply) -> None:
        if step is Step.MESSAGE:
            self._end(passed(reply))
        elif step is Step.DATA:
            self.flowing = True

    def _refused(self, step: Step, reply: Reply) -> None:
        not_understood = reply.code in _NOT_UNDERSTOOD and step is not Step.MESSAGE
        if not reply.negative or not_understood:
            self._out_of_step(_answered(step, reply))
        else:
            self._end(refused(reply, step.value))

    def _unasked(self, reply: Reply) -> bytes:
        """Handle a reply to no command: only a refusal during the text is valid."""
        if self.flowing and reply.negative:
            return self._end(refused(reply, "a part of the message"))
        return self._out_of_step(f"a reply to no command: {shown(reply)}")

    def _out_of_step(self, about: object) -> bytes:
        self._in_step = False
        return self._end(trouble(ScannerEnding.OUT_OF_STEP, about))

    def _end(self, verdict: Verdict) -> bytes:
        """Set the verdict; nothing more is sent."""
        self.verdict = verdict
        return b""

    # Commands.

    def _say(self, step: Step, line: bytes) -> bytes:
        self._expected.append(step)
        return line + b"\r\n"

    def _advance(self) -> bytes:
        """Send the next command, or all of them if the scanner offers PIPELINING."""
        if self._expected or not self._commands:
            return b""
        count = len(self._commands) if self._pipelining else 1
        return b"".join([self._say(*self._commands.popleft()) for _ in range(count)])

    def _sendable(self) -> bool:
        """Whether all addresses can be sent safely. The session lets no other address in; this is a second check."""
        envelope = self._request.envelope
        return not any(_LINE_BREAKING.search(address) for address in (envelope.sender or b"", *envelope.recipients))

    def _envelope(self, offered: Capabilities) -> Iterator[tuple[Step, bytes]]:
        envelope = self._request.envelope
        for name, value in self._client().items():
            encoded = xtext.encode(value)
            if name in offered.xforward and 0 < len(encoded) <= XFORWARD_LIMIT:
                yield Step.XFORWARD, b"XFORWARD %s=%s" % (name, encoded)
        asked = envelope.sender_parameters.upper().split()
        parameters = [b" " + word for word, keyword in _PASSED_ON if word in asked and keyword in offered.keywords]
        yield Step.MAIL, b"MAIL FROM:<%s>%s" % (envelope.sender or b"", b"".join(parameters))
        for recipient in envelope.recipients:
            yield Step.RCPT, b"RCPT TO:<%s>" % recipient
        yield Step.DATA, b"DATA"

    def _client(self) -> dict[bytes, bytes]:
        """The client's address and HELO name, or those of XFORWARD if the server accepted it; in Postfix's notation.

        IDENT, by which a scanner names a message in its log, is the trace id, which ours has.
        """
        request = self._request
        address = request.remote or request.client.encode()
        if b":" in address:
            address = b"IPV6:" + address
        helo = request.remote_helo if request.remote else request.helo
        return {b"ADDR": address, b"HELO": helo, b"IDENT": request.trace_id.encode()}


def _answered(step: Step, reply: Reply) -> str:
    return f"{step.value} was answered with: {shown(reply)}"
