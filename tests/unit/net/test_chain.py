"""A chain through the whole proxy: client, proxy, filters and server on real sockets."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.config.filter_lines import MemberType, parse_filter
from proxsmtp_tp.config.settings import FilterMode
from proxsmtp_tp.filters.edits import AddHeader, AddRecipient, ChangeSender, DeleteRecipient, Edit, Quarantine
from proxsmtp_tp.filters.member import FilterFailedError, Judgement
from proxsmtp_tp.filters.types import TYPES
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.replies import Reply
from proxsmtp_tp.telemetry.counters import Counter
from proxsmtp_tp.telemetry.sessions import SessionPhase
from proxsmtp_tp.telemetry.switches import Switch
from tests.unit.net.dialogue import MESSAGE, one_message
from tests.unit.net.proxy_harness import Mx, until
from tests.unit.session.models import ModelServer

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.config.filter_lines import FilterLine
    from proxsmtp_tp.filters.interface import FilterRequest
    from proxsmtp_tp.filters.mail import Mail
    from tests.unit.net.proxy_harness import ProxyHarness, StartProxy

COMMON = [220, 250, 250, 250, 354]


class Milter:
    """A Member that says what the test wants."""

    said: Judgement | Exception = Judgement()
    requests: list[FilterRequest]

    def __init__(self) -> None:
        self.requests = []
        self.running = 0
        self.most = 0
        """Running at once."""
        self.released = asyncio.Event()
        self.released.set()

    async def judge(self, _mail: Mail, request: FilterRequest) -> Judgement:
        self.requests.append(request)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.released.wait()
        finally:
            self.running -= 1
        if isinstance(self.said, Exception):
            raise self.said
        return self.said

    def close(self) -> None:
        """Member."""


@pytest.fixture
def milter(monkeypatch: pytest.MonkeyPatch) -> Milter:
    made = Milter()
    monkeypatch.setitem(TYPES, MemberType.MILTER, lambda _line, _parts: made)
    return made


def chain(*lines: str) -> tuple[FilterLine, ...]:
    return tuple(row for line in lines for row in parse_filter(line))


def edits(*wanted: Edit) -> Judgement:
    return Judgement(edits=wanted)


async def test_edits_of_message_and_envelope_arrive(
    start_proxy: StartProxy, milter: Milter, caplog: pytest.LogCaptureFixture
) -> None:
    milter.said = edits(
        AddHeader(b"X", b"y"),
        ChangeSender(b"new@c.example"),
        DeleteRecipient(b"b@mx.example"),
        AddRecipient(b"d@mx.example"),
    )
    model = ModelServer()
    async with Mx() as mx:
        mx.serve(lambda: model)
        async with start_proxy(mx, filter=chain("m milter /x", "p pipe sed s/X:/Y:/")) as harness:
            assert await one_message(await harness.client()) == [*COMMON, 250, 221]
            await harness.empty()
        request = milter.requests[0]
        assert request.server_port == mx.port
        assert request.client_port > 0
    assert b"\r\nY: y\r\n" in b"\r\n" + model.messages[0]
    tail = [line for line in model.commands if line not in {b"QUIT", b"DATA"}][-3:]
    assert tail == [b"RSET", b"MAIL FROM:<new@c.example>", b"RCPT TO:<d@mx.example>"]
    assert re.search(r"filters=m:edit:\d+\.\d{3},p:edit:\d+\.\d{3}", caplog.text)


ENDS = [
    (edits(), 250, True, "m:pass"),
    (Judgement(Action.REJECT, Reply.of(554, "5.7.1 no"), said="no"), 554, False, "m:reject"),
    (FilterFailedError("broken"), 451, False, "m:failed"),
    (edits(Quarantine("virus")), 550, False, "m:quarantine"),
    (edits(DeleteRecipient(b"b@mx.example")), 250, False, "m:edit"),
]


@pytest.mark.parametrize(("said", "code", "delivered", "logged"), ENDS)
async def test_ends(
    start_proxy: StartProxy,
    milter: Milter,
    caplog: pytest.LogCaptureFixture,
    said: Judgement | Exception,
    code: int,
    delivered: bool,
    logged: str,
) -> None:
    milter.said = said
    model = ModelServer()
    async with Mx() as mx:
        mx.serve(lambda: model)
        async with start_proxy(mx, filter=chain("m milter /x")) as harness:
            assert await one_message(await harness.client()) == [*COMMON, code, 221]
            await harness.empty()
    assert model.messages == ([MESSAGE] if delivered else [])
    assert re.search(rf"filters={logged}:\d+\.\d{{3}}", caplog.text)


async def test_filter_mode_monitor_and_a_bypass(
    start_proxy: StartProxy, milter: Milter, caplog: pytest.LogCaptureFixture
) -> None:
    """What passes unjudged is logged and counted; edits of message and envelope are left out."""
    milter.said = Judgement(Action.REJECT, Reply.of(554, "5.7.1 no"), said="no")
    model = ModelServer()
    lines = chain("e pipe sed s/^/X/ edits=body,headers failure=pass", "m milter /x")
    async with Mx() as mx:
        mx.serve(lambda: model)
        async with start_proxy(mx, filter=lines, filter_mode=FilterMode.MONITOR) as harness:
            assert await one_message(await harness.client()) == [*COMMON, 250, 221]
            milter.said = edits(ChangeSender(b"new@c.example"), DeleteRecipient(b"b@mx.example"))
            assert await one_message(await harness.client()) == [*COMMON, 250, 221]
            await harness.empty()
            counted = harness.admission.counters.totals()
            assert (counted[Counter.MONITORED], counted[Counter.MONITORED_REFUSED]) == (2, 2)
        async with start_proxy(mx, filter=lines) as harness:
            harness.admission.switches.set(Switch.BYPASS_UNTIL, time.monotonic_ns() + 3600 * 10**9)
            assert await one_message(await harness.client()) == [*COMMON, 250, 221]
            await harness.empty()
            assert harness.admission.counters.totals()[Counter.BYPASSED] == 1
    assert model.messages == [MESSAGE] * 3
    assert not [line for line in model.commands if b"new@c.example" in line]
    assert caplog.text.count("status=MONITORED") == 2
    assert "filter=would reject: 554 5.7.1 no" in caplog.text
    assert caplog.text.count("status=BYPASSED") == 1
    assert len(milter.requests) == 2


async def test_quarantine(
    start_proxy: StartProxy, milter: Milter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    milter.said = edits(Quarantine("virus"))
    model = ModelServer()
    async with Mx() as mx:
        mx.serve(lambda: model)
        place = str(tmp_path / "kept")
        async with start_proxy(mx, filter=chain("m milter /x"), quarantine_directory=place) as harness:
            assert await one_message(await harness.client()) == [*COMMON, 250, 221]
            await harness.empty()
        (facts,) = [json.loads(path.read_bytes()) for path in (tmp_path / "kept").glob("*.json")]
        assert facts["server_port"] == mx.port
    assert model.messages == []
    assert facts["envelope"]["recipients"] == ["b@mx.example"]
    assert "status=virus" in caplog.text


async def test_a_client_that_leaves_frees_the_place(start_proxy: StartProxy, milter: Milter) -> None:
    milter.released.clear()
    async with Mx() as mx:
        mx.serve(ModelServer)
        async with start_proxy(mx, filter=chain("m milter /x max=1")) as harness:
            first: Any = await harness.client()
            waiting = asyncio.ensure_future(one_message(first))
            await until(lambda: milter.running == 1, "it is asked")
            waiting.cancel()
            first.reset()
            await until(lambda: milter.running == 0, "it is cancelled")
            milter.released.set()
            assert await one_message(await harness.client()) == [*COMMON, 250, 221]
            await harness.empty()


def places(harness: ProxyHarness) -> tuple[int, int]:
    """How many messages are judged, and how many wait."""
    phases, _ = harness.admission.sessions.phases()
    return phases[SessionPhase.FILTER], phases[SessionPhase.WAITING]


async def test_places_are_shared_by_workers(
    start_proxy: StartProxy, milter: Milter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxsmtp_tp.filters.limit.NEVER_EMPTY", 3600.0)  # no message is told to come back
    milter.released.clear()
    async with Mx() as mx:
        mx.serve(ModelServer)
        async with start_proxy(mx, workers=3, filter=chain("m milter /x max=2 wait=200")) as harness:
            clients = [await harness.client() for _ in range(8)]
            tasks = [asyncio.ensure_future(one_message(client)) for client in clients]
            await until(lambda: places(harness) == (2, 6), "two are judged, the others wait")
            milter.released.set()
            assert [(await task)[-2] for task in tasks] == [250] * 8
            await harness.empty()
    assert milter.most == 2


async def test_answer_within(start_proxy: StartProxy, milter: Milter) -> None:
    milter.released.clear()
    model = ModelServer()
    async with Mx() as mx:
        mx.serve(lambda: model)
        async with start_proxy(mx, filter=chain("m milter /x"), answer_within=1) as harness:
            assert await one_message(await harness.client()) == [*COMMON, 451, 221]
            await harness.empty()
    assert milter.running == 0
    assert model.messages == []
