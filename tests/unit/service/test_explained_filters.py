"""What `explain` says of the filters of a chain is what a real chain does: skip=, mode= and failure= of each filter."""

from __future__ import annotations

import asyncio
import tempfile
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from proxsmtp_tp.config.filter_lines import Mode
from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.filters.chain import ChainFilter
from proxsmtp_tp.filters.interface import FilterRequest
from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.filters.links import Link
from proxsmtp_tp.filters.member import FilterFailedError, Judgement
from proxsmtp_tp.filters.shadowing import Shadows
from proxsmtp_tp.filters.spool_space import SpoolSpace
from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.service.limit_commands import explanation
from proxsmtp_tp.smtp.envelope import Envelope
from proxsmtp_tp.smtp.replies import Reply
from tests.unit.net.test_simulation import CLIENT, LINES, SERVER

if TYPE_CHECKING:
    from proxsmtp_tp.config.filter_lines import FilterLine
    from proxsmtp_tp.filters.mail import Mail

NO = Judgement(Action.REJECT, Reply.of(554, "5.7.1 no"))


class Member:
    """Passes, refuses or fails."""

    def __init__(self, does: str) -> None:
        self.does = does
        self.asked = False

    async def judge(self, _mail: Mail, _request: FilterRequest) -> Judgement:
        self.asked = True
        if self.does == "fails":
            raise FilterFailedError("it fails")
        return NO if self.does == "refuses" else Judgement()

    def close(self) -> None:
        pass


class Keeper:
    """Keeps what is quarantined, in no place."""

    async def refused(self, *_: Any, verdict: Verdict) -> Verdict:
        return verdict

    async def quarantine(self, *_: Any, reason: str) -> Verdict:
        return Verdict(Action.QUARANTINE, Reply.of(250, "2.0.0 ok"), reason)


class Owner:
    """Gets the verdict."""

    def __init__(self) -> None:
        self.verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

    def filter_verdict(self, verdict: Verdict) -> None:
        self.verdict.set_result(verdict)

    def filter_failed(self, error: Exception) -> None:
        self.verdict.set_exception(error)

    def filter_waits(self) -> None:
        pass

    def filter_started(self) -> None:
        pass


async def judged(lines: tuple[FilterLine, ...], members: dict[str, Member], authenticated: bool) -> Verdict:
    """The verdict of the real chain."""
    links = [Link(line, members[line.name], ProcessLimit(line.max)) for line in lines]
    shadows = Shadows([link for link in links if link.line.mode is Mode.SHADOW])
    judging = [link for link in links if link.line.mode is not Mode.SHADOW]
    with tempfile.TemporaryDirectory() as folder:
        chain = ChainFilter(judging, shadows, SpoolSpace(folder), Keeper())
        owner = Owner()
        request = FilterRequest(
            connection="1", envelope=Envelope(b"a@c.example", b"", [b"b@mx.example"]), client=CLIENT, server=SERVER,
            helo=b"c.example", authenticated=authenticated,
        )  # fmt: skip
        run = chain.start(request, owner)
        run.write(b"Subject: one\r\n\r\nhi\r\n")
        run.finish()
        verdict = await owner.verdict
        run.abort()
        await shadows.ended()
        chain.close()
    return verdict


def expected(told: list[dict[str, Any]], does: dict[str, str], skipped: str) -> tuple[Action, list[tuple[str, bool]]]:
    """The action, and each filter that judges before it with whether it is skipped, from what `explain` says alone."""
    kept, asked = False, []
    for each in (each for each in told if each["mode"] != "shadow"):
        asked.append((each["name"], each[skipped]))
        if each[skipped] or does[each["name"]] == "passes":
            continue
        if does[each["name"]] == "refuses":
            if each["mode"] == "enforce":
                return Action.REJECT, asked
            continue
        if each["failure"] in {"reject", "tempfail"}:
            return Action[each["failure"].upper()], asked
        kept |= each["failure"] == "quarantine"
    return Action.QUARANTINE if kept else Action.PASS, asked


@given(
    st.lists(LINES, min_size=1, max_size=3, unique_by=lambda line: line.name).map(tuple),
    st.lists(st.sampled_from(["passes", "refuses", "fails"]), min_size=3, max_size=3),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_a_chain_does_what_explain_says(lines: tuple[FilterLine, ...], does: list[str], authenticated: bool) -> None:
    members = {line.name: Member(what) for line, what in zip(lines, does, strict=False)}
    verdict = asyncio.run(judged(lines, members, authenticated))
    told = explanation(Settings(filter=lines), {"client": CLIENT, "server": SERVER})["filter"]["filters"]
    skipped = "skipped_authenticated" if authenticated else "skipped"
    action, asked = expected(told, {name: member.does for name, member in members.items()}, skipped)
    assert verdict.action is action
    assert [(each.name, each.verdict == "skipped") for each in verdict.judged] == asked
    for each in told:
        if each["mode"] == "shadow":
            assert members[each["name"]].asked is not each[skipped]
