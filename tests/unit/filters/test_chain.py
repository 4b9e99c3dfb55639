"""Chains of filters that tests make up, and of real commands: verdicts, edits, failures, places, pauses, shadows."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.config.filter_lines import parse_filter
from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.filters import chain_endings
from proxsmtp_tp.filters.chain import ChainFilter
from proxsmtp_tp.filters.chain_endings import REPLIES, ChainEnding
from proxsmtp_tp.filters.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    DeleteRecipient,
    InsertHeader,
    Quarantine,
    RemoveHeader,
    ReplaceBody,
    ReplaceMessage,
)
from proxsmtp_tp.filters.endings import Ending, not_stored, trouble
from proxsmtp_tp.filters.fields import FIELDS_LIMIT
from proxsmtp_tp.filters.keeping import NoKeeper
from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.filters.links import Link
from proxsmtp_tp.filters.mail import HEADER_LIMIT, Octets
from proxsmtp_tp.filters.member import FilterFailedError, Judgement, NotAskedError
from proxsmtp_tp.filters.shadowing import AT_ONCE, Shadows
from proxsmtp_tp.filters.spool import Spool
from proxsmtp_tp.filters.spool_space import SpoolFullError, SpoolSpace
from proxsmtp_tp.filters.table import make_filter
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.envelope import Envelope
from proxsmtp_tp.smtp.replies import Reply
from proxsmtp_tp.telemetry.quoting import quoted
from tests.unit.filters.filter_harness import TEXT, judge, jump, nothing_left, pass_through, start, until

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.config.filter_lines import FilterLine
    from proxsmtp_tp.filters.edits import Edit
    from proxsmtp_tp.filters.interface import FilterRequest
    from proxsmtp_tp.filters.mail import Mail
    from proxsmtp_tp.filters.verdict import Verdict
    from tests.unit.filters.conftest import Run


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
    verdict, passed = run(Chain(tmp_path, first, second, third).judge(envelope=_envelope()))
    assert first.mails == [TEXT]
    assert second.mails == [b"Subject: hello\r\nX: 1\r\n\r\nGood morning.\r\n"]
    assert third.mails == [passed] == [b"Subject: hello\r\nX: 2\r\n\r\nnew\r\n"]
    assert [each.sender for each in (*first.envelopes, *second.envelopes)] == [b"alice@example.com", b"new@x.example"]
    assert verdict.envelope == third.envelopes[0]
    assert verdict.envelope is not None
    assert verdict.envelope.recipients == [b"carol@example.org", b"d@x.example"]
    assert told(verdict) == ["f0 edit", "f1 edit", "f2 pass"]


def _envelope() -> Envelope:
    return Envelope(b"alice@example.com", b"", [b"bob@example.net", b"carol@example.org"], [b"", b""])


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
    verdict, _ = run(Chain(tmp_path, Fake(Judgement(edits=gone))).judge(envelope=_envelope()))
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


# Failures.

FAILURES = [
    FilterFailedError("broken"),
    ConnectionResetError("broken"),
    EOFError("broken"),
    TimeoutError(),
]
ACTIONS = {"tempfail": Action.TEMPFAIL, "reject": Action.REJECT, "pass": Action.PASS, "quarantine": Action.REJECT}


@pytest.mark.parametrize("policy", ACTIONS)
@pytest.mark.parametrize("error", FAILURES)
def test_a_failure_is_what_the_policy_says_and_of_one_message(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, policy: str, error: Exception
) -> None:
    member = Fake(error, Judgement())
    chain = Chain(tmp_path, (f"failure={policy}", member))
    verdict, passed = run(chain.judge())
    assert verdict.action is ACTIONS[policy]
    assert told(verdict) == ["f0 failed"]
    assert passed == (TEXT if policy == "pass" else b"")
    assert "100001: filter f0 failed: " in caplog.text
    verdict, passed = run(chain.judge())
    assert passed == TEXT


def test_a_filter_without_a_connection_has_its_own_reply(run: Run, tmp_path: Path) -> None:
    member = Fake(FilterFailedError("refused", unreachable=True))
    assert run(Chain(tmp_path, member).judge())[0].reply == REPLIES[ChainEnding.UNREACHABLE]


class Lost(Octets):
    """A text that cannot be read back."""

    def at(self, start: int, size: int) -> bytes:
        raise OSError(errno.EIO, "lost")


@pytest.mark.parametrize("policy", ["tempfail", "pass"])
def test_a_message_that_is_lost_never_passes(run: Run, tmp_path: Path, policy: str) -> None:
    """No filter has failed: so `failure=` does not decide."""
    member = Fake(Judgement(edits=(ReplaceMessage(Lost(b"X: y\r\n\r\n")), AddHeader(b"X", b"y"))))
    verdict, passed = run(Chain(tmp_path, (f"failure={policy}", member)).judge())
    assert (verdict.action, passed) == (Action.TEMPFAIL, b"")
    assert verdict.reply == not_stored(OSError()).reply


def test_no_space_is_said(run: Run, tmp_path: Path) -> None:
    """TempDirectory is full while the message comes."""
    chain = Chain(tmp_path, Fake())

    def full(_text: bytes) -> None:
        raise SpoolFullError("full")

    async def main() -> Verdict:
        case = start(chain.filter)
        case.write(TEXT)
        case.run._original.write = full  # type: ignore[attr-defined]
        case.write(TEXT)
        assert chain.space._tally.total == 0  # at once: others need it
        case.finish()
        verdict = await case.verdict()
        case.run.close()
        return verdict

    assert run(main()).reply == trouble(Ending.SPOOL_FULL, "").reply


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


FORGING = 'no, id=forged, "x'


def test_words_of_a_filter_cannot_look_like_a_field(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A comma outside of quotation marks ends a value, whoever chose the words."""
    caplog.set_level(logging.INFO)
    failing = Fake(FilterFailedError(FORGING, unreachable=True))
    shadow = Fake(Judgement(Action.REJECT, Reply.of(554, "no"), FORGING))
    chain = Chain(tmp_path, ("failure=pass", failing), ("mode=shadow", shadow))
    for _ in range(5):
        run(chain.judge())
    assert f"100001: filter f0 failed: {quoted(FORGING)}, id=" in caplog.text
    assert f"filter f0 does not answer, and gets no mail for some seconds: {quoted(FORGING)}\n" in caplog.text
    assert f", the verdict was pass: {quoted(FORGING)}, id=" in caplog.text
    assert "forged" not in caplog.text.replace(quoted(FORGING), "")


def test_a_bug_ends_the_connection(run: Run, tmp_path: Path) -> None:
    chain = Chain(tmp_path, Fake(ZeroDivisionError()))
    failed: list[Exception] = []

    async def main() -> None:
        case = start(chain.filter)
        case.owner.filter_failed = failed.append  # type: ignore[assignment,method-assign]
        case.write(TEXT)
        case.finish()
        await until(lambda: failed, "the bug is told")
        case.run.close()

    run(main())
    assert isinstance(failed[0], ZeroDivisionError)
    assert chain.space._tally.total == 0


def test_timeout_is_a_total(run_jumping: Run, tmp_path: Path) -> None:
    member = Fake(delay=100)
    chain = Chain(tmp_path, ("timeout=20", member))

    async def main() -> Verdict:
        case = start(chain.filter)
        case.write(TEXT)
        case.finish()
        await pass_through(10)
        jump(19)
        await pass_through(10)
        assert not case.owner.verdicts
        jump(2)
        return await case.verdict()

    verdict = run_jumping(main())
    assert verdict.reply == REPLIES[ChainEnding.TIMED_OUT]
    assert member.cancelled == 1


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


def test_an_edit_that_is_wrong_or_not_allowed_is_a_failure(run: Run, tmp_path: Path) -> None:
    verdict, _ = run(Chain(tmp_path, Fake(Judgement(edits=(AddHeader(b"A B", b"x"),)))).judge())
    assert verdict.reply == REPLIES[ChainEnding.BAD_EDIT]
    body = Fake(Judgement(edits=(ReplaceBody(Octets(b"x")),)))
    verdict, _ = run(Chain(tmp_path, ("edits=headers,sender", body)).judge())
    assert verdict.reply == REPLIES[ChainEnding.NOT_ALLOWED]
    assert "body: add it to edits= of filter f0" in verdict.judged[0].text
    verdict, passed = run(Chain(tmp_path, ("edits=headers", Fake(Judgement(edits=(AddHeader(b"X", b"y"),))))).judge())
    assert passed.startswith(b"Subject: hello\r\nX: y\r\n")


@pytest.mark.parametrize(
    ("edit", "kind"),
    [
        (AddHeader(b"X", b"y"), "headers"),
        (InsertHeader(1, b"X", b"y"), "headers"),
        (ChangeHeader(b"Subject", 1, b"y"), "headers"),
        (RemoveHeader(b"Subject"), "headers"),
        (ReplaceBody(Octets(b"y\r\n")), "body"),
        (ReplaceMessage(Octets(b"X: y\r\n\r\ny\r\n")), "body"),
        (ReplaceMessage(Octets(b"X: y\r\n\r\ny\r\n")), "headers"),
        (ChangeSender(b"new@x.example"), "sender"),
        (AddRecipient(b"new@x.example"), "recipients"),
        (DeleteRecipient(b"bob@example.net"), "recipients"),
    ],
)
def test_an_edit_needs_its_kind(run: Run, tmp_path: Path, edit: Edit, kind: str) -> None:
    kinds = {"headers", "body", "sender", "recipients"}
    member = Fake(Judgement(edits=(edit,)))
    assert (
        run(Chain(tmp_path, (f"edits={','.join(kinds)}", member)).judge(envelope=_envelope()))[0].action is Action.PASS
    )
    verdict, _ = run(Chain(tmp_path, (f"edits={','.join(kinds - {kind})}", member)).judge(envelope=_envelope()))
    assert verdict.reply == REPLIES[ChainEnding.NOT_ALLOWED]
    assert f"{kind}: add it to edits=" in verdict.judged[0].text


def test_a_header_that_is_too_large_can_be_kept(run: Run, tmp_path: Path) -> None:
    member = Fake(Judgement(edits=(AddHeader(b"X", b"y"),)))
    verdict, _ = run(Chain(tmp_path, ("failure=quarantine", member)).judge(b"A: " + b"x" * HEADER_LIMIT + b"\r\n\r\n"))
    assert verdict.reply == chain_endings.NO_QUARANTINE


@pytest.mark.parametrize("settings", ["", "mode=tag", "mode=tag limit=100", "failure=pass", "failure=reject"])
@pytest.mark.parametrize(
    "text",
    [b"A: " + b"x" * HEADER_LIMIT + b"\r\n\r\n", b"A:\r\n" * (FIELDS_LIMIT + 1) + b"\r\n"],
    ids=["octets", "fields"],
)
def test_a_header_that_is_too_large(run: Run, tmp_path: Path, settings: str, text: bytes) -> None:
    """The sender made it so: such a message must not avoid the filter by failure=pass."""
    member = Fake(Judgement(edits=(AddHeader(b"X", b"y"),)))
    verdict, passed = run(Chain(tmp_path, (settings, member)).judge(text))
    assert (verdict.action, verdict.reply) == (Action.REJECT, chain_endings.HEADER_TOO_LARGE)
    assert verdict.unjudged
    assert passed == b""


@pytest.mark.parametrize(
    ("settings", "others", "passed"),
    [
        ("", (), True),
        ("", (AddHeader(b"A B", b"x"),), None),  # the edits cannot be applied
        ("failure=pass", (AddRecipient(b"no address"),), False),
        ("edits=headers", (), None),
        ("edits=none failure=pass", (), False),
        ("mode=shadow", (), False),
        ("mode=shadow edits=headers", (), False),
        ("mode=tag", (Quarantine("odd"),), False),
    ],
)
@pytest.mark.parametrize("edit", [ReplaceBody, ReplaceMessage])
def test_texts_of_a_filter_are_freed(
    run: Run,
    tmp_path: Path,
    edit: type[ReplaceBody | ReplaceMessage],
    settings: str,
    others: tuple[Edit, ...],
    passed: bool | None,
) -> None:
    """Also where an edit is refused: `Chain.judge` requires that no space is taken. `passed`: with the text, or not."""
    member = Fake()
    chain = Chain(tmp_path, (settings, member))
    text = Spool(chain.space)
    text.write(b"X: y\r\n\r\nnew\r\n")
    text.complete()
    assert chain.space._tally.total
    member.said = [Judgement(edits=(edit(text), *others))]
    verdict, judged = run(chain.judge())
    assert (verdict.action is Action.PASS) == (passed is not None)
    assert judged.endswith(b"\r\n\r\nnew\r\n") == bool(passed)


# Settings.


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


def test_shadow(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    shadow = Fake(NO)
    first = Fake(Judgement(edits=(AddHeader(b"X", b"1"),)))
    verdict, _ = run(Chain(tmp_path, ("mode=shadow", shadow), first).judge())
    assert verdict.action is Action.PASS
    assert told(verdict) == ["f1 edit"]
    assert shadow.mails == [TEXT]  # as the client sent it
    assert re.search(r"shadow filter f0: would reject after \d+\.\d", caplog.text)
    assert "the verdict was pass: found: it" in caplog.text


def test_shadows_that_are_too_slow_are_left_out(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    shadow = Fake(delay=0.3)
    chain = Chain(tmp_path, ("mode=shadow", shadow), Fake())

    async def main() -> None:
        for _ in range(AT_ONCE + 2):
            assert (await judge(chain.filter, TEXT))[0].action is Action.PASS
        await until(lambda: not chain.filter.shadows._tasks, "shadows end")

    run(main())
    assert len(shadow.mails) == AT_ONCE
    assert caplog.text.count("did not get 2 messages") == 1
    assert chain.space._tally.total == 0


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (ZeroDivisionError(), "a shadow filter ended with an error"),
        (
            Judgement(edits=(ReplaceMessage(Lost(b"X: y\r\n\r\n")), AddHeader(b"X", b"y"))),
            "a shadow filter cannot read the message: [Errno 5] lost",
        ),
    ],
)
def test_a_shadow_that_breaks_costs_nothing(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, said: Judgement | BaseException, words: str
) -> None:
    chain = Chain(tmp_path, ("mode=shadow", Fake(said)), Fake())
    for _ in range(2):
        assert run(chain.judge())[1] == TEXT
    assert caplog.text.count(words) == 2


def test_shadows_end_with_the_worker(run: Run, tmp_path: Path) -> None:
    shadow = Fake(delay=100)
    chain = Chain(tmp_path, ("mode=shadow", shadow), Fake())

    async def main() -> None:
        await judge(chain.filter, TEXT)
        await until(lambda: shadow.mails, "it is asked")
        chain.filter.close()
        await until(lambda: not chain.filter.shadows._tasks, "shadows end")

    run(main())
    assert shadow.cancelled == 1
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


# The pause.


def test_a_dead_filter_gets_a_pause_and_one_probe(
    run_jumping: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    member = Fake(FilterFailedError("refused", unreachable=True))
    chain = Chain(tmp_path, ("failure=pass", member))

    async def ask(times: int) -> None:
        for _ in range(times):
            assert (await judge(chain.filter, TEXT))[1] == TEXT

    async def main() -> None:
        await ask(8)
        assert len(member.mails) == 5
        jump(1.5)
        await ask(3)
        assert len(member.mails) == 6  # the trial failed
        jump(1.5)
        await ask(1)
        assert len(member.mails) == 6  # the pause is twice as long now
        jump(1)
        member.said = [Judgement()]
        await ask(3)
        assert len(member.mails) == 9

    run_jumping(main())
    assert caplog.text.count("filter f0 does not answer, and gets no mail for some seconds: refused") == 1
    assert caplog.text.count("filter f0 answers again") == 1
    assert f"filter f0 failed: {ChainEnding.PAUSED.value}" in caplog.text


UNREACHABLE = FilterFailedError("refused", unreachable=True)


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ([UNREACHABLE] * 5, 5),
        ([TimeoutError()] * 5, 5),  # `timeout=`
        ([FilterFailedError("it says nothing", timed_out=True)] * 5, 5),
        ([UNREACHABLE] * 4 + [NotAskedError("busy")] + [UNREACHABLE] * 5, 6),  # it says nothing about the filter
        ([UNREACHABLE] * 4 + [FilterFailedError("garbage")] + [UNREACHABLE] * 4, 9),  # an answer, if a wrong one
        ([UNREACHABLE] * 4 + [Judgement()] + [UNREACHABLE] * 4, 9),
    ],
)
def test_failures_in_a_row_begin_a_pause(
    run: Run, tmp_path: Path, said: list[Judgement | BaseException], asked: int
) -> None:
    member = Fake(*said)
    chain = Chain(tmp_path, member)

    async def main() -> None:
        for _ in range(asked + (asked != 9)):
            await judge(chain.filter, TEXT)

    run(main())
    assert len(member.mails) == asked


@pytest.mark.parametrize("how", ["the client leaves", "no place"])
def test_a_trial_without_an_answer_is_made_again(run_jumping: Run, tmp_path: Path, how: str) -> None:
    member = Fake(UNREACHABLE)
    chain = Chain(tmp_path, member)

    async def main() -> None:
        for _ in range(5):
            await judge(chain.filter, TEXT)
        jump(1.5)
        if how == "no place":
            member.said = [NotAskedError("busy")]
            await judge(chain.filter, TEXT)
        else:
            member.delay = 100
            case = start(chain.filter)
            case.write(TEXT)
            case.finish()
            await until(lambda: len(member.mails) == 6, "the trial")
            case.abort()
            await until(lambda: member.cancelled, "its end")
        member.said, member.delay = [Judgement()], 0.0
        await judge(chain.filter, TEXT)

    run_jumping(main())
    assert len(member.mails) == 7


def test_what_the_filter_says_of_one_message_makes_no_pause(run: Run, tmp_path: Path) -> None:
    member = Fake(FilterFailedError("garbage"))
    chain = Chain(tmp_path, member)

    async def main() -> None:
        for _ in range(9):
            await judge(chain.filter, TEXT)

    run(main())
    assert len(member.mails) == 9


# Real commands.


def made(tmp_path: Path, *lines: str) -> Any:
    rows = tuple(row for text in lines for row in parse_filter(text))
    return make_filter(Settings(filter=rows, temp_directory=str(tmp_path)))


COMMANDS = [
    (["a pipe cat"], TEXT, ["a pass"]),
    (["a pipe tr -d '\\r'"], TEXT, ["a pass"]),
    (["a file true"], TEXT, ["a pass"]),
    (["a pipe sed s/hello/bye/", "b pipe sed s/bye/twice/"], TEXT.replace(b"hello", b"twice"), ["a edit", "b edit"]),
    (["a file sed -i s/hello/bye/ $EMAIL", "b pipe cat"], TEXT.replace(b"hello", b"bye"), ["a edit", "b pass"]),
    (["a pipe tr -d '\\r' | sed s/hello/bye/"], TEXT.replace(b"hello", b"bye"), ["a edit"]),
    (["a pipe cat; printf more"], TEXT + b"more", ["a edit"]),
    (["a pipe exit 1", "b pipe cat"], b"", ["a reject"]),
    (["a pipe kill -9 $$ failure=pass", "b pipe cat"], TEXT, ["a failed", "b pass"]),
    (["a pipe true failure=pass"], TEXT, ["a failed"]),
    (["a smtp /nonexistent,127.0.0.1:1 failure=pass"], TEXT, ["a failed"]),
]


@pytest.mark.parametrize(("lines", "passed", "said"), COMMANDS)
def test_commands(run: Run, tmp_path: Path, lines: list[str], passed: bytes, said: list[str]) -> None:
    async def main() -> tuple[Verdict, bytes]:
        async with nothing_left(tmp_path):
            chain = made(tmp_path, *lines)
            result = await judge(chain, TEXT)
            await until(lambda: not chain.running, "every process is reaped")
            chain.close()
        assert (chain.space.memory, chain.space._tally.total) == (0, 0)
        return result

    verdict, given = run(main())
    assert told(verdict) == said
    assert given == passed


def test_large_messages_through_commands(run_uvloop: Run, tmp_path: Path) -> None:
    large = b"Subject: x\r\n\r\n" + b"0123456789abcdef\r\n" * 60_000

    async def main() -> bytes:
        chain = made(tmp_path, "a pipe cat", "b file true", "c pipe tr -d '\\r' | sed s/x/y/")
        passed = (await judge(chain, large))[1]
        chain.close()
        assert (chain.space.memory, chain.space._tally.total) == (0, 0)
        return passed

    assert run_uvloop(main()) == large.replace(b"x", b"y", 1)


def test_close_ends_all(run: Run, tmp_path: Path) -> None:
    members = [Fake(), Fake()]
    chain = Chain(tmp_path, members[0], ("mode=shadow", members[1]))

    async def main() -> None:
        chain.filter.close()

    run(main())
    assert [member.closed for member in members] == [True, True]


PLACES = [
    (["a pipe cat", "b file true max=1", "c pipe cat"], ["started", "waits", "started", "started"]),
    (["a pipe cat skip=0.0.0.0/0", "b pipe cat max=1"], ["waits", "started"]),
    (["s pipe cat mode=shadow", "b pipe cat"], ["started"]),
    (["a smtp /nonexistent,/nowhere failure=pass", "b pipe cat max=1"], ["started", "started", "waits", "started"]),
]


@pytest.mark.parametrize(("lines", "told"), PLACES)
def test_the_owner_is_told_of_the_places_of_each_filter(
    run: Run, tmp_path: Path, lines: list[str], told: list[str]
) -> None:
    """The filter with max=1 has no free place at first."""

    async def main() -> list[str]:
        chain = made(tmp_path, *lines)
        full = [link.places for link in chain.links if link.places.maximum == 1]
        for limit in full:
            assert limit.enter(lambda: None)
        case = start(chain)
        case.write(TEXT)
        case.finish()
        if full:
            await until(lambda: "waits" in case.owner.places, "it waits")
            full[0].leave()
        assert (await case.verdict()).action is Action.PASS
        case.run.close()
        await chain.shadows.ended()
        await until(lambda: not chain.running, "every process is reaped")
        chain.close()
        return case.owner.places

    assert run(main()) == told


@pytest.mark.parametrize("line", ["a pipe cat max=1", "a clamd /nonexistent max=1"])
def test_an_owner_that_has_left_is_told_of_no_place(run: Run, tmp_path: Path, line: str) -> None:
    """The place becomes free at the same moment. The owner may have another message then."""

    async def main() -> None:
        chain = made(tmp_path, line)
        places = chain.links[0].places
        assert places.enter(lambda: None)
        case = start(chain)
        case.write(TEXT)
        case.finish()
        await until(lambda: case.owner.places == ["waits"], "it waits")
        places.leave()
        case.abort()
        await until(lambda: not chain.running, "the place is free")
        assert case.owner.places == ["waits"]
        chain.close()

    run(main())
