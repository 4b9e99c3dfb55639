"""Log lines of whole sessions over sockets: their levels, their order, and the facts in them."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.net import reporting
from proxsmtp_tp.telemetry.quoting import fields
from proxsmtp_tp.telemetry.switches import Switch
from tests.unit.net.dialogue import DOT, address, meet, one_message, relayed
from tests.unit.net.proxy_harness import Mx
from tests.unit.session.models import ModelServer

if TYPE_CHECKING:
    from tests.unit.net.proxy_harness import StartProxy


def lines(caplog: pytest.LogCaptureFixture, word: str) -> list[dict[str, str]]:
    """The fields of the lines with this word, without the name."""
    return [dict(fields(line.partition(": ")[2])) for line in caplog.messages if f", {word}=" in line]


async def test_a_message(start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with Mx() as mx, start_proxy(mx, filter_command="sed 's/hello/HELLO/'") as harness:
        mx.serve(ModelServer)
        await one_message(await harness.client())
        await harness.empty()
    (line,) = lines(caplog, "status")
    assert (line["status"], line["helo"], line["size"], line["changed"]) == ("FILTERED", "c.example", "26", "yes")
    assert 0 < float(line["filter-seconds"]) <= float(line["seconds"]) < 60
    (end,) = lines(caplog, "disconnected")
    assert (end["disconnected"], end["commands"], end["data"], end["messages"]) == ("quit", "5", "1", "1")
    assert {line["id"], end["id"]} == {end["id"]}


async def test_a_refused_recipient(start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    """The question of the issue: why was the mail to bob refused yesterday?"""
    caplog.set_level("INFO")
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await meet(harness, mx)
        await relayed(client, server, "MAIL FROM:<a@c.example>", "250 2.1.0 ok")
        await relayed(client, server, "RCPT TO:<bob@mx.example>", "550-5.1.1 unknown,\n550 5.1.1 status=FILTERED")
        client.close()
        await server.rest()
        await harness.empty()
    (line,) = lines(caplog, "refused")
    assert (line["client"], line["from"], line["to"]) == ("127.0.0.1", "a@c.example", "bob@mx.example")
    assert (line["refused"], line["reply"]) == ("RCPT", "550-5.1.1 unknown, / 550 5.1.1 status=FILTERED")
    (end,) = lines(caplog, "disconnected")
    assert (end["disconnected"], end["rcpt"], end["messages"]) == ("client", "0/1", "0")


async def test_a_filter_that_fails_is_a_warning(start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    async with Mx() as mx, start_proxy(mx, filter_command="kill -9 $$") as harness:
        client, server = await meet(harness, mx)
        await address(client, server)
        assert (await client.ask("DATA")).startswith(b"354")
        assert (await client.ask(DOT)).startswith(b"451")
    (line,) = [record for record in caplog.records if "status=FILTER-ERROR" in record.getMessage()]
    assert line.levelno == logging.WARNING


async def test_what_is_not_logged_is_not_formatted(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("ERROR")
    for name in ("transaction", "refusal", "session_end"):
        monkeypatch.delattr(f"proxsmtp_tp.telemetry.log_lines.{name}")
    async with Mx() as mx, start_proxy(mx) as harness:
        mx.serve(ModelServer)
        await one_message(await harness.client())
        await harness.empty()


@pytest.mark.parametrize(
    ("client", "probe", "silent"), [("198.18.254.10", 60, True), ("198.18.254.10", 0, False), ("127.0.0.1", 60, False)]
)
async def test_the_probe_of_doctor_is_silent(
    start_proxy: StartProxy,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    client: str,
    probe: int,
    silent: bool,
) -> None:
    """Neither the address alone nor the announcement alone hides a session."""
    caplog.set_level("INFO")
    real = reporting.Reporting.__init__

    def of_client(self: reporting.Reporting, context: object, owner: object, port: int) -> None:
        owner.client_ip = client  # type: ignore[attr-defined]
        real(self, context, owner, port)  # type: ignore[arg-type]

    monkeypatch.setattr(reporting.Reporting, "__init__", of_client)
    async with Mx() as mx, start_proxy(mx) as harness:
        harness.admission.switches.set(Switch.PROBE_UNTIL, time.monotonic_ns() + probe * 10**9)
        mx.serve(ModelServer)
        await one_message(await harness.client())
        await harness.empty()
    assert (not caplog.messages) is silent
