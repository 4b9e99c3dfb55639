"""FilterType smtp through the whole proxy: client, proxy, scanner and server on real sockets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.settings import FilterMode, FilterType
from proxsmtp_tp.telemetry.counters import Counter
from proxsmtp_tp.telemetry.switches import Switch
from tests.unit.net.dialogue import MESSAGE, one_message
from tests.unit.net.proxy_harness import Mx
from tests.unit.session.models import ModelServer

if TYPE_CHECKING:
    from tests.unit.net.proxy_harness import StartProxy


class Scanner(ModelServer):
    """Says what it is told to say of every message, and keeps what it refused too."""

    def __init__(self, verdict: bytes) -> None:
        super().__init__(keywords=(b"PIPELINING", b"XFORWARD ADDR HELO"))
        self._verdict = verdict

    def receive(self, data: bytes) -> bytes:
        return super().receive(data).replace(b"250 2.0.0 queued\r\n", self._verdict)


@pytest.mark.parametrize(
    ("verdict", "code", "status"),
    [
        (b"250 2.6.0 clean\r\n", 250, "FILTERED"),
        (b"554-5.7.1 Virus\r\n554 5.7.1 found\r\n", 554, "554 5.7.1 Virus found"),
        (b"421 4.3.2 going down\r\n", 451, "451 4.3.2 going down"),
        (b"354 more\r\n", 451, "FILTER-ERROR"),
    ],
)
async def test_the_scanner_is_the_judge(
    start_proxy: StartProxy, caplog: pytest.LogCaptureFixture, verdict: bytes, code: int, status: str
) -> None:
    scanner, model = Scanner(verdict), ModelServer()
    async with Mx() as judge, Mx() as mx:
        judge.serve(lambda: scanner)
        mx.serve(lambda: model)
        async with start_proxy(mx, filter_type=FilterType.SMTP, filter_command=f"127.0.0.1:{judge.port}") as harness:
            assert await one_message(await harness.client()) == [220, 250, 250, 250, 354, code, 221]
            await harness.empty()
    assert scanner.messages == [MESSAGE]
    assert scanner.commands[1:] == [
        b"XFORWARD ADDR=127.0.0.1", b"XFORWARD HELO=c.example",
        b"MAIL FROM:<a@c.example>", b"RCPT TO:<b@mx.example>", b"DATA",
    ] + [b"QUIT"] * (code != 451 or status != "FILTER-ERROR")  # fmt: skip
    assert model.messages == ([MESSAGE] if code == 250 else [])
    assert f"status={status}" in caplog.text


async def test_a_scanner_that_is_not_there(start_proxy: StartProxy) -> None:
    """Nothing unjudged passes."""
    model = ModelServer()
    async with Mx() as judge, Mx() as mx:
        port = judge.port
        judge.listener.close()
        mx.serve(lambda: model)
        async with start_proxy(mx, filter_type=FilterType.SMTP, filter_command=f"127.0.0.1:{port}") as harness:
            assert (await one_message(await harness.client()))[-2:] == [451, 221]
            await harness.empty()
    assert not model.messages


class Broken(ModelServer):
    """Says something else in place of its reply to one command, or to the message."""

    def __init__(self, step: bytes, said: bytes, keywords: tuple[bytes, ...]) -> None:
        super().__init__(keywords=keywords)
        self._step, self._said = step, said

    def receive(self, data: bytes) -> bytes:
        reply = super().receive(data)
        at_step = self._step in data or (self._step == b"text" and b"250 2.0.0 queued" in reply)
        return self._said if at_step else reply


INVALID_REPLIES = {
    "binary": bytes(range(256)) * 16,
    "one line without end": b"250 " + b"x" * 300_000,
    "one reply without end": b"250-x\r\n" * 40_000,
    "a hundred thousand replies": b"100 wait\r\n" * 100_000,
    "another code": b"150 ok\r\n",
    "letters for digits": b"25O ok\r\n",
    "NULs": b"\0250 ok\r\n",
    "two codes": b"250-ok\r\n550 no\r\n354 go\r\n",
    "not for this command": b"334 UGFzcw==\r\n",
    "another protocol": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a second message's worth": b"354 go\r\n250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n",
}


@pytest.mark.parametrize("keywords", [(), (b"PIPELINING", b"XFORWARD ADDR HELO")], ids=["plain", "pipelining"])
@pytest.mark.parametrize("step", [b"EHLO", b"MAIL FROM", b"RCPT TO", b"text"])
@pytest.mark.parametrize("said", INVALID_REPLIES)
async def test_a_broken_scanner_judges_nothing(
    start_proxy: StartProxy, said: str, step: bytes, keywords: tuple[bytes, ...]
) -> None:
    """Nothing unjudged passes, nothing is bounced, and the session stays in step."""
    model = ModelServer()
    async with Mx() as judge, Mx() as mx:
        judge.serve(lambda: Broken(step, INVALID_REPLIES[said], keywords))
        mx.serve(lambda: model)
        async with start_proxy(mx, filter_type=FilterType.SMTP, filter_command=f"127.0.0.1:{judge.port}") as harness:
            assert await one_message(await harness.client()) == [220, 250, 250, 250, 354, 451, 221]
            await harness.empty()
    assert not model.messages


async def test_a_big_message_through_a_scanner(start_proxy: StartProxy) -> None:
    text = "Subject: big\n\n" + "x" * 70 + ("\n" + "y" * 70) * 30_000
    scanner, model = Scanner(b"250 clean\r\n"), ModelServer()
    async with Mx() as judge, Mx() as mx:
        judge.serve(lambda: scanner)
        mx.serve(lambda: model)
        async with start_proxy(mx, filter_type=FilterType.SMTP, filter_command=f"127.0.0.1:{judge.port}") as harness:
            assert (await one_message(await harness.client(), f"{text}\n."))[-2:] == [250, 221]
            await harness.empty()
    expected = text.replace("\n", "\r\n").encode() + b"\r\n"
    assert scanner.messages == model.messages == [expected]


async def test_a_client_that_goes_in_the_middle(start_proxy: StartProxy) -> None:
    """Before its message is complete no scanner learns of it; afterwards the scanner gets no end of data."""
    async with Mx() as judge, Mx() as mx:
        model = ModelServer()
        mx.serve(lambda: model)
        async with start_proxy(mx, filter_type=FilterType.SMTP, filter_command=f"127.0.0.1:{judge.port}") as harness:
            for end in ("", "\n.\n"):
                client = await harness.client()
                await client.say(
                    "EHLO c.example\nMAIL FROM:<a@c.example>\nRCPT TO:<b@mx.example>\nDATA\nSubject: x" + end
                )
                if end:
                    scanner = await judge.greeted()
                    for answer in ("250 scanner", "250 ok", "250 ok"):
                        await scanner.line()
                        await scanner.say(answer)
                    await scanner.text(b"DATA\r\n")
                client.reset()
                await harness.empty()
            assert not await scanner.rest()
            assert len(judge.peers) == 1
        assert not model.messages


@pytest.mark.parametrize("kind", [FilterType.PIPE, FilterType.FILE, FilterType.SMTP])
async def test_a_monitored_filter_refuses_nothing(
    start_proxy: StartProxy, caplog: pytest.LogCaptureFixture, kind: FilterType
) -> None:
    model = ModelServer()
    async with Mx() as judge, Mx() as mx:
        judge.serve(lambda: Scanner(b"550 5.7.1 spam\r\n"))
        mx.serve(lambda: model)
        command = "echo more >>$EMAIL; echo lost; echo 550 5.7.1 spam >&2; exit 1"
        command = f"127.0.0.1:{judge.port}" if kind is FilterType.SMTP else command
        mode = FilterMode.MONITOR
        async with start_proxy(mx, filter_type=kind, filter_command=command, filter_mode=mode) as harness:
            assert await one_message(await harness.client()) == [220, 250, 250, 250, 354, 250, 221]
            await harness.empty()
            totals = harness.admission.counters.totals()
    assert model.messages == [MESSAGE]
    assert "status=MONITORED" in caplog.text
    assert "filter=would reject: 550 5.7.1 spam (" in caplog.text
    assert (totals[Counter.MONITORED], totals[Counter.MONITORED_REFUSED]) == (1, 1)


async def test_a_bypass_from_one_message_to_the_next(start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    model = ModelServer()
    async with Mx() as mx:
        mx.serve(lambda: model)
        async with start_proxy(mx, filter_command="echo 550 5.7.1 spam >&2; exit 1") as harness:
            switches = harness.admission.switches
            assert await one_message(await harness.client()) == [220, 250, 250, 250, 354, 550, 221]
            switches.set(Switch.BYPASS_UNTIL, time.monotonic_ns() + 3600 * 10**9)
            assert await one_message(await harness.client()) == [220, 250, 250, 250, 354, 250, 221]
            switches.set(Switch.BYPASS_UNTIL, time.monotonic_ns() - 1)  # its end needs no master
            assert await one_message(await harness.client()) == [220, 250, 250, 250, 354, 550, 221]
            await harness.empty()
            assert harness.admission.counters.totals()[Counter.BYPASSED] == 1
    assert model.messages == [MESSAGE]
    assert caplog.text.count("status=BYPASSED") == 1
