"""Runs FilterType smtp in tests: a filter that may leave nothing behind, a scanner brought to a step of it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.filters.smtp import SmtpFilter
from proxsmtp_tp.filters.spool_space import SpoolSpace
from proxsmtp_tp.filters.verdict import Action
from tests.unit.filters.filter_harness import WAIT_SECONDS, Case, Owner, open_descriptors, request, until
from tests.unit.net.proxy_harness import Mx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from proxsmtp_tp.config.addresses import Address
    from proxsmtp_tp.filters.verdict import Verdict
    from tests.unit.net.proxy_harness import Peer

TEXT = b"Subject: hello\r\n\r\n.Good morning.\r\n..\r\n"
LARGE = b"Subject: large\r\n\r\n" + b"The quick brown fox jumps over the lazy dog, and over it again.\r\n" * 500_000
"""More than the kernel holds on the way to a scanner that does not read (tcp(7), tcp_wmem and tcp_rmem)."""
STEPS = ["the connection", "EHLO", "MAIL", "RCPT", "another RCPT", "DATA", "the text", "the message"]
"""Where `lead` stops: the scanner owes the reply to it, or has not read all of the text (which is LARGE)."""
END = b"\r\n.\r\n"
LIMIT = 100.0
"""Seconds: a FilterTimeout for tests whose clock jumps."""


def begin(filter_: SmtpFilter, **known: Any) -> Case:
    """A message before the scanner."""
    owner = Owner()
    asked = request(**known)
    owner.inside = True
    run = filter_.start(asked, owner)
    owner.inside = False
    return Case(owner, run, asked.helo)


def complete(filter_: SmtpFilter, **known: Any) -> Case:
    """A message that the scanner is to judge."""
    case = begin(filter_, **known)
    case.write(TEXT)
    case.finish()
    return case


async def lead(case: Case, mx: Mx, to: str) -> Peer:
    """A scanner without extensions, that has not yet answered `to`."""
    if not case.finished:
        case.write(LARGE if to == "the text" else TEXT)
        case.finish()
    peer = await mx.accept()
    dialogue = [
        ("EHLO", b"EHLO ", "220 scanner"),
        ("MAIL", b"MAIL FROM:<alice@example.com>", "250 scanner"),
        ("RCPT", b"RCPT TO:<bob@example.net>", "250 ok"),
        ("another RCPT", b"RCPT TO:<carol@example.org>", "250 ok"),
        ("DATA", b"DATA", "250 ok"),
    ]
    if to == STEPS[0]:
        return peer
    for step, line, answer in dialogue:
        await peer.say(answer)
        assert (await peer.line()).startswith(line)
        if step == to:
            return peer
    await peer.say("354 go")
    if to == "the text":
        await peer.text(b"quick brown")
        connection = case.run._connection  # type: ignore[attr-defined]
        await until(lambda: connection.stalled, "the scanner does not read on")
        return peer
    assert await peer.text() == TEXT.replace(b"\r\n.", b"\r\n..") + b".\r\n"
    return peer


async def judged(case: Case) -> tuple[Verdict, bytes]:
    """The verdict, and the message that passed."""
    verdict = await case.verdict()
    passed = case.read_all() if verdict.action is Action.PASS else b""
    assert (verdict.action is Action.PASS) == (verdict.reply is None)
    assert verdict.size == len(passed)
    assert verdict.detail.isprintable()
    assert verdict.said.isprintable()
    assert verdict.reply is None or verdict.reply.wire.count(b"\n") == 1
    case.run.close()
    return verdict, passed


@asynccontextmanager
async def scanning(
    mx: Mx | Address, directory: Path, *, limit: float = WAIT_SECONDS, connections: int = 8
) -> AsyncIterator[SmtpFilter]:
    """A filter that leaves nothing behind: no connection, no task, no descriptor."""
    before = sockets_and_files(directory)
    address = mx.address if isinstance(mx, Mx) else mx
    filter_ = SmtpFilter(address, limit, SpoolSpace(str(directory)), ProcessLimit(connections))
    yield filter_
    await until(lambda: filter_.running == 0, "every connection is closed")
    assert filter_.waiting == 0
    assert not filter_._connections
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("dial")]
    for peer in mx.peers if isinstance(mx, Mx) else []:
        peer.close()
    await until(lambda: not sockets_and_files(directory) - before, "no descriptor is left")


def sockets_and_files(directory: Path) -> set[str]:
    """Descriptors that a filter may have."""
    return {kind for kind in open_descriptors().values() if kind.startswith(("socket:", str(directory)))}
