"""Each sender, and a server whose reply to the end of data is untidy: the message is delivered once, and not queued."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab.gateway import Instance
from proxsmtp_tp.lab.network import MX_V4
from tests.mta.exchange import Exchange, exchange, until
from tests.mta.sink import Arrived, Sink, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxsmtp_tp.lab.network import GatewayNetwork

SECONDS = 60.0
HERE = "postfix"
"""Whose domain leads to MX_V4, where the server of this test listens."""
UNTIDY = {
    "blank line": b"\r\n250 Ok\r\n",
    "two codes": b"250-Ok\r\n251 queued\r\n",
    "no space": b"250ok\r\n",
    "comma": b"250, ok\r\n",
    "9000 octets": b"250 " + b"x" * 9000 + b"\r\n",
    "code alone": b"250\r\n",
}


@pytest.fixture(scope="module")
def senders(lab: GatewayNetwork, directory: Path) -> Iterator[Exchange]:
    """The four, with nothing behind the gateway yet."""
    with exchange(lab, directory, receivers=()) as made:
        yield made


def untidy(message: Arrived) -> bytes:
    """By the message's subject."""
    kinds = [kind for kind in UNTIDY if f"Subject: {kind}\r\n".encode() in message.text]
    return UNTIDY[kinds[0]] if kinds else b"250 taken\r\n"


@pytest.mark.parametrize("filtered", [False, True])
def test_each_message_arrives_once(senders: Exchange, directory: Path, *, filtered: bool) -> None:
    directives = {"TransparentProxy": "client", "TempDirectory": str(directory), "RuleInterface": "lan"}
    directives |= {"FilterCommand": "cat"} if filtered else {}
    with (
        serving(Sink(senders.lab.mx, MX_V4, 25, untidy)) as sink,
        Instance(senders.lab.gateway, directory, directives, f"untidy-{filtered}").running() as instance,
    ):
        marks = {
            senders.submit(sender, HERE, f"{filtered}.{sender}.{number}", kind, "hello\r\n")
            for sender in senders.senders
            for number, kind in enumerate(UNTIDY)
        }
        missing = sink.wait(marks, SECONDS)
        assert not missing, f"{missing}\n{senders.logs()}\n{instance.log[-3000:]}"
        for mta in senders.senders.values():
            assert until(lambda mta=mta: not mta.queued(), SECONDS), f"{mta.queued()}\n{mta.log()[-3000:]}"  # type: ignore[misc]
        senders.wait_parted(SECONDS)
    assert Counter(message.mark for message in sink.all) == Counter(marks)
    assert "duplicate" not in instance.log
