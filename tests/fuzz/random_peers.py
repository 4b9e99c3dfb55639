"""Random client streams, random server replies, and the invariants that must always hold.

The oracle is a reader of its own, as simple as can be: lines end in CRLF, a message ends in CRLF . CRLF. It knows
nothing of how the proxy works.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.unit.session.models import ModelServer
from tests.unit.smtp.servers import MODELS, ends_seen, ends_seen_without_nuls

if TYPE_CHECKING:
    from random import Random

END = b"\r\n.\r\n"
BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")

COMMANDS = [
    b"EHLO c\r\n", b"HELO c\r\n", b"NOOP\r\n", b"RSET\r\n", b"VRFY x\r\n", b"XYZZY\r\n", b"\r\n", b"STARTTLS\r\n",
    b"MAIL FROM:<a@c>\r\n", b"MAIL FROM:<>\r\n", b"MAIL FROM:a@c SIZE=5\r\n", b"MAIL\r\n", b"MAIL FROM:<a@c\r\n",
    b"RCPT TO:<b@mx>\r\n", b"RCPT TO:<refuse@mx>\r\n", b"RCPT TO:<>\r\n", b"DATA\r\n", b"data \r\n", b"DATA now\r\n",
    b"XCLIENT ADDR=1\r\n", b"XFORWARD ADDR=192.0.2.1\r\n", b"AUTH LOGIN\r\n", b"AUTH PLAIN AHgAeA==\r\n",
    b"dXNlcg==\r\n", b"BDAT 5\r\nhello", b"BDAT 7 LAST\r\nDATA\r\n.", b"BDAT x\r\n",
    b"NOOP\nNOOP\r\n", b"NO\rOP\r\n", b"NO\0OP\r\n", b"y" * 3000 + b"\r\n", b"QUIT\r\n",
]  # fmt: skip
TRANSACTION = [b"MAIL FROM:<a@c>\r\n", b"RCPT TO:<b@mx>\r\n", b"DATA\r\n"]
TEXTS = [
    b"Subject: a\r\n", b"\r\n", b"hello\r\n", b"..\r\n", b".x\r\n", b"SPAM\r\n", b"NOISE\r\n", b"a\nb\r\n", b"a\rb\r\n",
    b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\0", b".\0\r\n", b"\0.\r\n", b"MAIL FROM:<evil@c>\r\n", b"QUIT\r\n",
    b"\r", b"\n", b".", b"x" * 1200,
]  # fmt: skip


def client_stream(random: Random) -> bytes:
    """What one client sends: commands in some order, whole transactions often, and messages after DATA."""
    said = [b"EHLO c\r\n"]
    for _ in range(random.randint(1, 8)):
        if random.random() < 0.6:
            said += TRANSACTION
            said += random.choices(TEXTS, k=random.randint(0, 6))
            said.append(random.choice([END, END, END, b"\r\n.\r\n\r\n.\r\n", b"\n.\n" + END]))
        else:
            said += random.choices(COMMANDS, k=random.randint(1, 5))
    if random.random() < 0.7:
        said.append(b"QUIT\r\n")
    return b"".join(said)


def pieces_of(random: Random, data: bytes) -> list[bytes]:
    """The same octets in random pieces."""
    places = sorted(random.randrange(len(data) + 1) for _ in range(random.choice([0, 1, 3, 10, 40])))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True) if a < b]


FRAGMENTS = [
    b"250 ok\r\n", b"250-", b"250", b" ok\r\n", b"354 go\r\n", b"334 x\r\n", b"550 no\r\n", b"421 bye\r\n",
    b"\r\n", b"\0", b"250-a\r\n250 b\r\n", b"250-a\r\n550 b\r\n", b"235 in\r\n", b"99\r\n", b"x" * 3000,
    b"250 a\n", b"250 a\rb\r\n",
]  # fmt: skip


class RandomServer(ModelServer):
    """A server that keeps the rules (each command in its turn), refuses at random, and keeps all it was sent."""

    def __init__(self, random: Random) -> None:
        super().__init__(keywords=(b"PIPELINING",) if random.random() < 0.5 else (b"SIZE",))
        self.random = random
        self.wire = b""
        self.accepted: list[bytes] = []
        self._turn = 0
        self._awaiting_auth = False
        self._refusing = random.choice([0.0, 0.0, 0.1, 0.3])

    def receive(self, data: bytes) -> bytes:
        self.wire += data
        had = len(self.messages)
        answers = super().receive(data)
        for message in self.messages[had:]:
            if self.random.random() < self._refusing:
                answers = answers.replace(b"250 2.0.0 queued\r\n", b"554-5.7.1 not\r\n554 5.7.1 queued\r\n", 1)
            else:
                answers = answers.replace(b"250 2.0.0 queued\r\n", b"250 2.0.0 taken\r\n", 1)
                self.accepted.append(message)
        return answers

    def _answer(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if self._awaiting_auth:
            self._awaiting_auth = False
            return b"235 2.7.0 in\r\n" if line != b"*" else b"501 cancelled\r\n"
        if verb == b"AUTH":
            self._awaiting_auth = b"PLAIN" not in line
            return b"334 VXNlcm5hbWU6\r\n" if self._awaiting_auth else b"235 2.7.0 in\r\n"
        if self._turn < {b"RCPT": 1, b"DATA": 2}.get(verb, 0):
            return b"503 5.5.1 not now\r\n"
        if verb not in {b"QUIT", b"RSET", b"EHLO"} and self.random.random() < self._refusing:
            return self.random.choice([b"450 4.2.0 later\r\n", b"550-5.1.1 no\r\n550 5.1.1 never\r\n"])
        answer = super()._answer(line)
        if answer[:1] in {b"2", b"3"}:
            self._turn = {b"MAIL": 1, b"RCPT": 2, b"EHLO": 0, b"HELO": 0, b"RSET": 0, b"DATA": 0}.get(verb, self._turn)
        return answer


@dataclass
class View:
    """What a client makes of its own octets and the replies, counting both."""

    finals: list[int] = field(default_factory=list)
    """The replies to its messages."""
    texts: list[bytes] = field(default_factory=list)
    """Its messages, as they stood in its stream."""
    lines: list[bytes] = field(default_factory=list)
    """Its command lines that had a reply."""
    ended: bool = False
    """A reply told it that this is the end."""
    unanswered: bytes = b""
    """What it sent and heard no reply to."""
    in_text: bool = False
    """That is a message without its end."""


def view(said: bytes, told: list[int]) -> View:
    """Read a client's stream along with the replies. AssertionError where there are more of them than it asked for."""
    seen = View()
    replies = iter(told)
    first = next(replies, None)
    seen.ended = first == 421
    while not seen.ended:
        line, end, rest = said.partition(b"\r\n")
        if not end:
            break
        code = next(replies, None)
        if code is None:
            break
        said = rest
        seen.lines.append(line)
        seen.ended = code in {421, 221}
        if code == 354:
            text, end, rest = (b"\r\n" + said).partition(END)
            seen.in_text = not end
            code = next(replies, None) if end else None
            if code is None:
                break
            seen.texts.append(text)
            seen.finals.append(code)
            seen.ended = code == 421
            said = rest
        chunk = re.match(rb"(?i)BDAT (\d+)", line)
        if chunk and code == 451:
            said = said[int(chunk[1]) :]
    seen.unanswered = said
    left = list(replies)
    assert not left or (left == [421] and not seen.ended), f"replies to nothing: {left} after {seen.lines[-1:]}"
    seen.ended = seen.ended or bool(left)
    return seen


def plain(text: bytes) -> bytes:
    """A message without what may change on its way: line ends, dots, NULs."""
    return re.sub(rb"[\r\n.\0]+", b"", text)


def assert_one_reading(server: RandomServer, words: str) -> None:
    """Strict and lenient servers see the same messages, and no command has anything in it that could be two."""
    commands = server.wire
    for message in server.messages:
        wire = message + b".\r\n"
        for newlines, nuls in MODELS:
            assert ends_seen(wire, newlines, nuls) == [len(wire) - 3], words
        assert ends_seen_without_nuls(wire) == 1, words
        assert wire in commands
        commands = commands.replace(wire, b"", 1)
    assert server._in_text or not BARE.search(commands), words


OURS = {b"DATA", b"RSET", b"NOOP", b"QUIT", b"*", b"."}


def assert_only_the_clients_commands(commands: list[bytes], said: bytes) -> None:
    """Each of these is a whole line of the client's, in its order, or one of our own."""
    lines = iter(said.split(b"\r\n")[:-1])
    for command in commands:
        # A line behind a chunk that was skipped begins in the middle of what `split` gives.
        assert command in OURS or any(_is_sent_as(line, command) for line in lines), command


def _is_sent_as(line: bytes, command: bytes) -> bool:
    """Byte for byte; a path that lacks its angle brackets gets them where a filter is told of it."""
    return line.endswith(command) or line.replace(b":a@c ", b":<a@c> ").endswith(command)
