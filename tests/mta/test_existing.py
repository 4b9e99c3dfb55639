"""OpenSMTPD, which keeps a connection as long as it has mail, and rules that come meanwhile (RuleExisting)."""

from __future__ import annotations

import time
from threading import Event
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab.gateway import Instance
from proxsmtp_tp.lab.network import MX_V4
from tests.mta.exchange import FILTER, Exchange, exchange, judged, text, until
from tests.mta.sink import Arrived, Sink, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxsmtp_tp.lab.network import GatewayNetwork

MESSAGES = 30
SLOW, PACE = 3.0, 0.4
"""Seconds of the server for each message, until the rules are in place and then: much mail is left when they come."""
SECONDS = 60.0


@pytest.fixture
def sender(lab: GatewayNetwork, directory: Path) -> Iterator[Exchange]:
    """OpenSMTPD."""
    folder = directory / f"existing-{time.monotonic_ns()}"
    folder.mkdir(mode=0o755)
    with exchange(lab, folder, ("opensmtpd",), ()) as made:
        yield made


@pytest.mark.parametrize("existing", ["reset", "finish"])
def test_a_sender_that_keeps_its_connection(sender: Exchange, directory: Path, existing: str) -> None:
    script = directory / "judge"
    script.write_text(FILTER)
    script.chmod(0o755)
    directives = {
        "TransparentProxy": "client", "TempDirectory": str(directory), "RuleInterface": "lan",
        "FilterCommand": str(script), "RuleExisting": existing,
    }  # fmt: skip
    in_place = Event()

    def slowly(_: Arrived) -> bytes:
        if in_place.wait(SLOW):
            time.sleep(PACE)
        return b"250 taken\r\n"

    with serving(Sink(sender.lab.mx, MX_V4, 25, slowly)) as sink:
        marks = [sender.submit("opensmtpd", "postfix", f"{existing}.{n}", "message", "x\r\n") for n in range(MESSAGES)]
        assert until(lambda: len(sink.all) > 2, SECONDS), sender.logs()
        with Instance(sender.lab.gateway, directory, directives, existing).running() as instance:
            in_place.set()
            before = len(sink.all)
            assert until(lambda: len(sink.all) > before + 10, SECONDS), sender.logs()
            if existing == "finish":
                assert "go on unfiltered" in instance.command("check-rules")
            # Until it has sent all, or waits minutes with the messages that it was cut off with.
            sender.wait_parted(SECONDS)
        after = [judged(text(message))[0] for message in sink.all[before:]]
    assert len({message.mark for message in sink.all}) == len(sink.all), "doubled"
    assert {message.mark for message in sink.all} <= set(marks)
    if existing == "reset":
        # One message for each connection may have been on its way when the rules came.
        assert all(after[3:]), after
        assert len(after) > 10
    else:
        assert after.count(False) > 3, after
