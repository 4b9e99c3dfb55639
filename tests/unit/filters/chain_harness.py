"""Chains of filters that tests make up, and of real commands."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.config.filter_lines import parse_filter
from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.filters.chain import ChainFilter
from proxsmtp_tp.filters.keeping import NoKeeper
from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.filters.links import Link
from proxsmtp_tp.filters.member import FilterFailedError, Judgement
from proxsmtp_tp.filters.shadowing import Shadows
from proxsmtp_tp.filters.spool_space import SpoolSpace
from proxsmtp_tp.filters.table import make_filter
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.envelope import Envelope
from proxsmtp_tp.smtp.replies import Reply
from tests.unit.filters.filter_harness import TEXT, judge, until

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.config.filter_lines import FilterLine
    from proxsmtp_tp.filters.interface import FilterRequest
    from proxsmtp_tp.filters.mail import Mail
    from proxsmtp_tp.filters.verdict import Verdict


class Fake:
    """A Member that says what the test wants, and remembers what it was asked."""

    def __init__(self, *said: Judgement | BaseException, delay: float = 0.0) -> None:
        self.said = list(said) or [Judgement()]
        self.delay = delay
        self.mails: list[bytes] = []
        self.envelopes: list[Envelope] = []
        self.cancelled = 0
        self.closed = False

    async def judge(self, mail: Mail, request: FilterRequest) -> Judgement:
        self.mails.append(b"".join(mail.chunks()))
        self.envelopes.append(request.envelope)
        try:
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        said = self.said.pop(0) if len(self.said) > 1 else self.said[0]
        if isinstance(said, BaseException):
            raise said
        return said

    def close(self) -> None:
        self.closed = True


def line(settings: str = "", name: str = "f") -> FilterLine:
    return parse_filter(f"{name} milter /run/x {settings}")[0]


class Chain:
    """A chain of fakes; `spaces` of it are empty when all is done."""

    def __init__(self, tmp_path: Path, *members: Fake | tuple[str, Fake]) -> None:
        self.space = SpoolSpace(str(tmp_path))
        found = []
        for number, member in enumerate(members):
            settings, fake = member if isinstance(member, tuple) else ("", member)
            row = line(settings, f"f{number}")
            found.append(Link(row, fake, ProcessLimit(row.max)))
        judging = [link for link in found if link.line.mode.value != "shadow"]
        shadows = Shadows([link for link in found if link.line.mode.value == "shadow"])
        self.filter = ChainFilter(judging, shadows, self.space, NoKeeper())

    async def judge(self, text: bytes = TEXT, **known: Any) -> tuple[Verdict, bytes]:
        result = await judge(self.filter, text, **known)
        await until(lambda: not self.filter.shadows._tasks, "shadows end")
        assert (self.space.memory, self.space._tally.total) == (0, 0)
        return result


def told(verdict: Verdict) -> list[str]:
    return [f"{each.name} {each.verdict}" for each in verdict.judged]


NO = Judgement(Action.REJECT, Reply.of(554, "5.7.1 no"), "found: it", said="it")


def two_recipients() -> Envelope:
    return Envelope(b"alice@example.com", b"", [b"bob@example.net", b"carol@example.org"], [b"", b""])


class Lost:
    """A text that cannot be read back."""

    def __init__(self, octets: bytes) -> None:
        self.size = len(octets)

    def close(self) -> None:
        """Text."""

    def at(self, start: int, size: int) -> bytes:
        raise OSError(errno.EIO, "lost")


UNREACHABLE = FilterFailedError("refused", unreachable=True)


# Real commands.


def made(tmp_path: Path, *lines: str) -> Any:
    rows = tuple(row for text in lines for row in parse_filter(text))
    return make_filter(Settings(filter=rows, temp_directory=str(tmp_path)))
