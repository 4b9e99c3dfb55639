"""Log lines of whole sessions over sockets: their levels, their order, and the facts in them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from proxsmtp_tp.telemetry.quoting import fields
from tests.unit.net.dialogue import DOT, address, meet, one_message, relayed
from tests.unit.net.proxy_harness import Mx
from tests.unit.session.models import ModelServer

if TYPE_CHECKING:
    import pytest

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
    """The log answers why the mail to bob was refused."""
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
