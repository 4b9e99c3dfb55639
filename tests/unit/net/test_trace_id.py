"""The id of a session: the same in log, filter environment and refusals of ours, and in no other replies."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.unit.net.dialogue import meet, one_message, relayed
from tests.unit.net.proxy_harness import Mx, until
from tests.unit.session.models import ModelServer

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.unit.net.proxy_harness import StartProxy

ID = re.compile(r", id=([0-9A-HJKMNP-TV-Z]{13})$")


def ids_by_name(caplog: pytest.LogCaptureFixture) -> dict[str, set[str]]:
    """The ids of each connection, by the name at the beginning of its lines. Every line must have one."""
    found: dict[str, set[str]] = {}
    for line in caplog.messages:
        if re.match(r"[0-9A-F]{6}: ", line):
            shown = ID.search(line)
            assert shown is not None, line
            found.setdefault(line[:6], set()).add(shown[1])
    return found


async def test_one_id_for_each_session(
    start_proxy: StartProxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Log lines and filter of one session agree, and the next session has another."""
    caplog.set_level("DEBUG")
    command = f"echo $TRACE_ID >>{tmp_path}/ids; cat; echo done >&2"
    async with Mx() as mx, start_proxy(mx, filter_command=command) as harness:
        mx.serve(ModelServer)
        for _ in range(2):
            await one_message(await harness.client())
        told = (tmp_path / "ids").read_text().split()
    assert len(set(told)) == 2
    assert list(ids_by_name(caplog).values()) == [{told[0]}, {told[1]}]


async def test_a_refusal_of_ours_names_it(start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with Mx() as mx, start_proxy(mx) as harness:
        client, server = await meet(harness, mx)
        await client.ask("STARTTLS")
        await relayed(client, server, "VRFY you", "550 5.1.1 no")
        (logged,) = ids_by_name(caplog).values()
        assert client.trace_ids == [*logged]
        await server.say("250 2.0.0 for nothing")
        harness.errors_expected = True
        assert (await client.rest()).startswith(b"421 4.3.0 ")
        assert client.trace_ids == [*logged] * 2


async def test_no_server_and_an_internal_error_name_it(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with Mx() as mx:
        nobody = mx.address
    async with start_proxy(nobody) as harness:
        client = await harness.client()
        await client.rest()
        assert len(client.trace_ids) == 1
        await until(lambda: "no connection to the server" in caplog.text, "logged")
        assert f"id={client.trace_ids[0]}" in caplog.text
