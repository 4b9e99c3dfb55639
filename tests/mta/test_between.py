"""Mail from each of Postfix, Exim, sendmail and OpenSMTPD to each, through the gateway: once, whole, byte for byte.

What arrives is compared with what arrives without us, so that what the servers themselves change is none of it.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab.gateway import Instance
from tests.mta.exchange import BODIES, FILTER, REFUSED, Exchange, exchange, judged, text, until
from tests.mta.results import used

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxsmtp_tp.lab.network import GatewayNetwork

SECONDS = 100.0
"""For all messages of a run: a delivery takes a second, and the machine is busy."""
REFUSE = {"refuse me\r\nX-Refuse: yes": "spam\r\n"}
WAYS = [
    ("nftables", "redirect", "client", False),
    ("nftables", "tproxy", "full", True),
    ("iptables", "redirect", "full", True),
    ("iptables", "tproxy", "client", False),
]


@pytest.fixture(scope="module")
def servers(lab: GatewayNetwork, directory: Path) -> Iterator[Exchange]:
    """The servers."""
    with exchange(lab, directory) as made:
        yield made


@pytest.fixture(scope="module")
def direct(servers: Exchange) -> dict[bytes, bytes]:
    """What arrives without us."""
    return arrive(servers, "direct")


def arrive(servers: Exchange, run: str) -> dict[bytes, bytes]:
    """Post everything, and wait: what is at the MX's sink, by its mark without the run. Once for each recipient."""
    marks = servers.post(run, BODIES)
    missing = servers.sink.wait(marks, SECONDS)
    assert not missing, f"{sorted(missing)}\n{servers.logs()}"
    # A connection that OpenSMTPD keeps, and that is ended from the other side, costs its next message minutes.
    servers.wait_parted(SECONDS)
    came = [message for message in servers.sink.all if message.mark in marks]
    copies = Counter((message.mark, used(to)) for message in came for to in message.recipients)
    recipients = [
        (mark, b"<%s@%s.example>" % (name, mark.split(b".")[2])) for mark in marks for name in (b"bob", b"carol")
    ]
    assert copies == Counter(recipients)
    prefix = f"{run}.".encode()
    return {message.mark.removeprefix(prefix): text(message).replace(prefix, b"") for message in came}


@pytest.mark.timeout(300)
def test_control_without_us(direct: dict[bytes, bytes]) -> None:
    """The text is as it was sent, so what other tests find is ours."""
    bodies = [body.encode() for body in BODIES.values()]
    for mark, octets in direct.items():
        assert octets.partition(b"\r\n\r\n")[2] == bodies[int(mark.split(b".")[2])], mark


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("method", "mode", "transparency", "filtered"), WAYS)
def test_each_to_each(
    servers: Exchange, directory: Path, direct: dict[bytes, bytes],
    method: str, mode: str, transparency: str, filtered: bool,
) -> None:  # fmt: skip
    name = f"{method}-{mode}-{transparency}"
    spool = directory / name
    spool.mkdir()
    directives = {
        "RuleMethod": method, "RuleMode": mode, "TransparentProxy": transparency, "TempDirectory": str(spool),
        "RuleInterface": "lan",
    }  # fmt: skip
    script = directory / "judge"
    script.write_text(FILTER)
    script.chmod(0o755)
    if filtered:
        directives["FilterCommand"] = str(script)
    with Instance(servers.lab.gateway, directory, directives, name).running() as instance:
        refused = servers.post(f"{name}-refused", REFUSE) if filtered else set()
        proxied = arrive(servers, name)
        check_bounces(servers, refused)
    assert "Traceback" not in instance.log
    assert proxied.keys() == direct.keys()
    for mark, octets in proxied.items():
        assert judged(octets) == (filtered, direct[mark]), f"{mark!r}\n{instance.log[-2000:]}"
    assert not list(spool.iterdir())


def check_bounces(servers: Exchange, marks: set[bytes]) -> None:
    """Each of these messages came back once, with the filter's words, and none of them reached the MX's sink."""

    def bounces() -> list[bytes]:
        return [text(message) for message in servers.back.all if used(message.sender) == b"<>"]

    def bounced(mark: bytes) -> list[bytes]:
        return [bounce for bounce in bounces() if mark + b"@back.example" in bounce]

    assert until(lambda: all(bounced(mark) for mark in marks), SECONDS), (
        f"{[mark for mark in marks if not bounced(mark)]}\n{servers.logs()}"
    )
    for mark in marks:
        (bounce,) = bounced(mark)
        assert REFUSED in re.sub(r"\s+(?:\S*> )?", " ", bounce.decode()), bounce.decode()
        assert mark not in servers.sink.arrived
