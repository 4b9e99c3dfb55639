"""Chains of filters: what each one sees, whose verdict counts, and when the chain ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters import chain_endings
from proxsmtp_tp.filters.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    DeleteRecipient,
    Quarantine,
    ReplaceBody,
)
from proxsmtp_tp.filters.keeping import NoKeeper
from proxsmtp_tp.filters.mail import Octets
from proxsmtp_tp.filters.member import FilterFailedError, Judgement
from proxsmtp_tp.filters.verdict import Action
from tests.unit.filters.chain_harness import NO, Chain, Fake, told, two_recipients
from tests.unit.filters.filter_harness import TEXT, pass_through, start, until

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.filters.mail import Mail
    from proxsmtp_tp.filters.verdict import Verdict
    from tests.unit.filters.conftest import Run


def test_without_an_edit_it_is_the_clients_octets(run: Run, tmp_path: Path) -> None:
    text = b"odd \xff\r\n\x00no header"
    verdict, passed = run(Chain(tmp_path, Fake(), Fake()).judge(text))
    assert passed == text
    assert verdict.action is Action.PASS
    assert verdict.envelope is None
    assert told(verdict) == ["f0 pass", "f1 pass"]


def test_each_filter_sees_what_those_before_it_changed(run: Run, tmp_path: Path) -> None:
    first = Fake(
        Judgement(edits=(AddHeader(b"X", b"1"), ChangeSender(b"new@x.example"), DeleteRecipient(b"bob@example.net")))
    )
    second = Fake(
        Judgement(edits=(ChangeHeader(b"X", 1, b"2"), ReplaceBody(Octets(b"new\r\n")), AddRecipient(b"d@x.example")))
    )
    third = Fake()
    verdict, passed = run(Chain(tmp_path, first, second, third).judge(envelope=two_recipients()))
    assert first.mails == [TEXT]
    assert second.mails == [b"Subject: hello\r\nX: 1\r\n\r\nGood morning.\r\n"]
    assert third.mails == [passed] == [b"Subject: hello\r\nX: 2\r\n\r\nnew\r\n"]
    assert [each.sender for each in (*first.envelopes, *second.envelopes)] == [b"alice@example.com", b"new@x.example"]
    assert verdict.envelope == third.envelopes[0]
    assert verdict.envelope is not None
    assert verdict.envelope.recipients == [b"carol@example.org", b"d@x.example"]
    assert told(verdict) == ["f0 edit", "f1 edit", "f2 pass"]


@pytest.mark.parametrize("action", [Action.REJECT, Action.TEMPFAIL, Action.DISCARD])
def test_a_refusal_ends_the_chain(run: Run, tmp_path: Path, action: Action) -> None:
    last = Fake()
    verdict, passed = run(Chain(tmp_path, Fake(), Fake(Judgement(action, detail="why")), last).judge())
    assert verdict.action is action
    assert verdict.reply == chain_endings.USUAL[action]
    assert verdict.detail == "f1: why"
    assert verdict.said
    assert passed == b""
    assert last.mails == []


def test_a_later_refusal_counts_more_than_a_quarantine(run: Run, tmp_path: Path) -> None:
    held = Fake(Judgement(edits=(Quarantine("virus"),)))
    verdict, _ = run(Chain(tmp_path, held, Fake(NO)).judge())
    assert (verdict.action, verdict.reply, verdict.said) == (Action.REJECT, NO.reply, "it")
    verdict, passed = run(Chain(tmp_path, held, Fake()).judge())
    assert (verdict.action, verdict.reply, passed) == (Action.REJECT, chain_endings.NO_QUARANTINE, b"")
    assert told(verdict) == ["f0 quarantine", "f1 pass"]


def test_no_recipient_left_is_a_discard(run: Run, tmp_path: Path) -> None:
    gone = (DeleteRecipient(b"bob@example.net"), DeleteRecipient(b"carol@example.org"))
    verdict, _ = run(Chain(tmp_path, Fake(Judgement(edits=gone))).judge(envelope=two_recipients()))
    assert (verdict.action, verdict.said) == (Action.DISCARD, "no recipient is left")


@pytest.mark.parametrize(
    ("settings", "said", "unjudged"),
    [
        ("", NO, False),
        ("", Judgement(edits=(Quarantine("virus"),)), False),
        ("failure=reject", FilterFailedError("broken"), True),
        ("failure=quarantine", FilterFailedError("broken"), True),
        ("limit=10 oversize=reject", Judgement(), True),
    ],
)
def test_a_refusal_that_no_filter_decided_says_so(
    run: Run, tmp_path: Path, settings: str, said: Judgement | BaseException, unjudged: bool
) -> None:
    """It counts for no limit of the client."""
    verdict, _ = run(Chain(tmp_path, (settings, Fake(said)), Fake()).judge())
    assert (verdict.action, verdict.unjudged) == (Action.REJECT, unjudged)


def test_the_last_reason_for_quarantine_counts(run: Run, tmp_path: Path) -> None:
    held = [Fake(Judgement(edits=(Quarantine(reason),))) for reason in ("first", "second")]
    verdict, _ = run(Chain(tmp_path, *held).judge())
    assert verdict.said == "second"
    assert told(verdict) == ["f0 quarantine", "f1 quarantine"]


def test_standard_error_of_each_filter_has_its_name(run: Run, tmp_path: Path) -> None:
    members = [Fake(Judgement(errors=errors)) for errors in ("one", "", "three")]
    assert run(Chain(tmp_path, *members).judge())[0].errors == "f0: one; f2: three"


@pytest.mark.parametrize("when", ["while it is judged", "after the verdict"])
def test_a_client_that_leaves_gets_no_verdict(run: Run, tmp_path: Path, when: str) -> None:
    chain = Chain(tmp_path, Fake())

    async def main() -> None:
        case = start(chain.filter)
        case.write(TEXT)
        case.finish()
        if when == "after the verdict":
            await until(lambda: case.run._settled, "the verdict", pause=0)  # type: ignore[attr-defined]
        case.abort()
        await pass_through(10)
        assert not case.owner.verdicts
        case.run.close()

    run(main())
    assert chain.space._tally.total == 0


def test_abort_ends_the_filter(run: Run, tmp_path: Path) -> None:
    member = Fake(delay=100)
    chain = Chain(tmp_path, member)

    async def main() -> None:
        case = start(chain.filter)
        case.write(TEXT)
        case.finish()
        await until(lambda: member.mails, "it is asked")
        case.abort()
        await until(lambda: member.cancelled, "it is cancelled")
        case.run.close()
        assert not case.owner.verdicts
        assert chain.filter.running == 0

    run(main())
    assert chain.space._tally.total == 0


class SlowKeeper(NoKeeper):
    """Needs time to end, as a thread does that reads the message."""

    def __init__(self) -> None:
        self.began = False
        self.read = b""

    async def quarantine(self, mail: Mail, *_message: object, reason: str) -> Verdict:  # type: ignore[override]
        self.began = True
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(0.02)
            self.read = mail.at(0, 8)
        raise AssertionError(reason)


def test_a_message_that_is_kept_is_not_freed_meanwhile(run: Run, tmp_path: Path) -> None:
    chain, keeper = Chain(tmp_path, Fake(Judgement(edits=(Quarantine("bad"),)))), SlowKeeper()
    chain.filter.keeper = keeper

    async def main() -> None:
        case = start(chain.filter)
        case.write(TEXT)
        case.finish()
        await until(lambda: keeper.began, "it is kept")
        case.abort()
        case.run.close()
        await until(lambda: keeper.read, "it is read")
        await until(lambda: not chain.space._tally.total, "it is freed")

    run(main())
    assert keeper.read == TEXT[:8]


def test_close_ends_all(run: Run, tmp_path: Path) -> None:
    members = [Fake(), Fake()]
    chain = Chain(tmp_path, members[0], ("mode=shadow", members[1]))

    async def main() -> None:
        chain.filter.close()

    run(main())
    assert [member.closed for member in members] == [True, True]
