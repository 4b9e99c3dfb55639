"""Settings of a filter in a chain: skip=, limit=, mode=tag, max=."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.chain_endings import REPLIES, ChainEnding
from proxsmtp_tp.filters.edits import (
    AddHeader,
    Quarantine,
    ReplaceMessage,
)
from proxsmtp_tp.filters.mail import Octets
from proxsmtp_tp.filters.member import Judgement
from proxsmtp_tp.filters.verdict import Action
from tests.unit.filters.chain_harness import NO, Chain, Fake, told
from tests.unit.filters.filter_harness import TEXT, jump, pass_through, start, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.filters.conftest import Run


def test_skip(run: Run, tmp_path: Path) -> None:
    member = Fake(NO)
    chain = Chain(tmp_path, ("skip=authenticated,192.0.2.0/28,2001:db8::/32", member))
    for known in ({"authenticated": True, "client": "203.0.113.1"}, {"client": "192.0.2.7"}, {"client": "2001:db8::7"}):
        verdict, passed = run(chain.judge(**known))
        assert passed == TEXT
        assert told(verdict) == ["f0 skipped"]
    for client in ("203.0.113.1", ""):
        assert run(chain.judge(client=client))[0].action is Action.REJECT


@pytest.mark.parametrize(("policy", "code"), [("reject", 552), ("tempfail", 451), ("pass", None)])
def test_oversize(run: Run, tmp_path: Path, policy: str, code: int | None) -> None:
    member = Fake()
    chain = Chain(tmp_path, (f"limit={len(TEXT)} oversize={policy}", member))
    run(chain.judge())
    verdict, passed = run(chain.judge(TEXT + b"x"))
    assert (verdict.reply and verdict.reply.code) == code
    assert passed == (b"" if code else TEXT + b"x")
    assert len(member.mails) == 1


def test_tag(run: Run, tmp_path: Path) -> None:
    forged = b"X-Filter-F0: none\r\nSubject: x\r\nx-filter-f0: none\r\n\r\nbody\r\n"
    clean, tagged = b"Subject: x\r\n", b"X-Filter-f0: reject=554 5.7.1 no\r\n"
    verdict, passed = run(Chain(tmp_path, ("mode=tag", Fake(NO))).judge(forged))
    assert passed == clean + tagged + b"\r\nbody\r\n"
    assert told(verdict) == ["f0 tag"]
    verdict, passed = run(Chain(tmp_path, ("mode=tag", Fake())).judge(forged))
    assert passed == clean + b"\r\nbody\r\n"
    assert told(verdict) == ["f0 edit"]
    assert told(run(Chain(tmp_path, ("mode=tag", Fake())).judge())[0]) == ["f0 pass"]
    held = Fake(Judgement(edits=(Quarantine("a\r\nb"),)))
    assert b"\r\nX-Filter-f0: quarantine=a??b\r\n" in run(Chain(tmp_path, ("mode=tag", held)).judge())[1]


def test_a_tag_is_one_line(run: Run, tmp_path: Path) -> None:
    """RFC 5322 section 2.1.1: at most 998 octets, whatever the filter says."""
    long = Fake(Judgement(edits=(Quarantine("a" * 5000),)))
    _, passed = run(Chain(tmp_path, ("mode=tag", long)).judge())
    (tag,) = [row for row in passed.split(b"\r\n") if row.startswith(b"X-Filter-f0: quarantine=aaa")]
    assert 900 < len(tag) <= 998


def test_a_tag_is_only_ours(run: Run, tmp_path: Path) -> None:
    """However many the sender wrote, and whoever wrote them."""
    forged = b"X-Filter-F0: none\r\n" * 1500 + b"Subject: x\r\n\r\nbody\r\n"
    settings = "mode=tag failure=pass"
    _, passed = run(Chain(tmp_path, (settings, Fake(NO))).judge(forged))
    assert passed == b"Subject: x\r\nX-Filter-f0: reject=554 5.7.1 no\r\n\r\nbody\r\n"
    returned = Fake(Judgement(edits=(ReplaceMessage(Octets(forged)), AddHeader(b"X-Filter-f0", b"none"))))
    assert run(Chain(tmp_path, (settings, returned)).judge())[1] == b"Subject: x\r\n\r\nbody\r\n"


# Places.


def test_places(run_jumping: Run, tmp_path: Path) -> None:
    member = Fake(delay=50)
    chain = Chain(tmp_path, ("max=1 wait=5 timeout=100", member))

    async def main() -> None:
        first, second, third = (start(chain.filter) for _ in range(3))
        for case in (first, second):
            case.write(TEXT)
            case.finish()
        await pass_through(10)
        assert len(member.mails) == 1
        jump(6)
        assert (await second.verdict()).reply == REPLIES[ChainEnding.NO_PLACE]
        third.write(TEXT)
        third.finish()
        await pass_through(10)
        first.abort()  # its place is free at once
        await until(lambda: len(member.mails) == 2, "the third one is asked")
        jump(51)
        assert (await third.verdict()).action is Action.PASS
        limit = chain.filter.links[0].places
        assert (limit.taken, limit.waiting) == (0, 0)
        for case in (first, second, third):
            case.run.close()

    run_jumping(main())
