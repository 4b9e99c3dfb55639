"""The four servers on both sides of the gateway: each sends to each, and sinks behind them keep what came.

A message goes to a server on the sender, from there across the gateway to one on the MX, and from there to the MX's
sink. Bounces go from the sender's servers to the sender's sink.
"""

from __future__ import annotations

import re
import smtplib
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxsmtp_tp.lab.client import Client
from proxsmtp_tp.lab.network import MX_V4, GatewayNetwork
from tests.mta.servers import START_BY_NAME, Mta, Place
from tests.mta.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.mta.sink import Arrived

PREFIX, _, FIRST = MX_V4.rpartition(".")
ADDRESSES = {name: f"{PREFIX}.{int(FIRST) + n}" for n, name in enumerate(START_BY_NAME)}
"""Of the servers on the MX; mail for `NAME.example` goes to NAME's."""
Names = tuple[str, ...]
NAMES: Names = tuple(START_BY_NAME)
SUBMISSION = 2500
"""The servers on the sender listen on 127.0.0.1 from this port on."""
REFUSED = "550 5.7.1 refused by the test's filter"
FILTER = f"""\
#!/bin/sh
# Refuses what asks for it, puts a field before the rest.
file=$(mktemp) || exit 75
trap 'rm -f "$file"' EXIT
cat >"$file"
if grep -q '^X-Refuse:' "$file"; then echo "{REFUSED}" >&2; exit 1; fi
printf 'X-Judged: yes\\n'
cat "$file"
"""
_RECEIVED = re.compile(rb"^Received: [^\n]*\n(?:[ \t][^\n]*\n)*", re.MULTILINE)
_JUDGED = b"X-Judged: yes\r\n"

HEADER = (
    "From: Alice <alice@back.example>\r\nTo: bob@mx.example,\r\n\tcarol@mx.example\r\n"
    "Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nSubject: {kind}\r\nMessage-ID: <{mark}@back.example>\r\n"
    "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
    "X-Form: {mark}\r\n"
)
BODIES = {
    "plain": "hello\r\n",
    "empty": "",
    "dots": ".\r\n..\r\n.x\r\n...\r\nQUIT\r\n.\r\n",
    "utf-8": "Grüße, \N{SNOWMAN}\r\n",
    "blanks": "trailing \t\r\n\r\n \r\n\r\n\r\n",
    "long lines": ("y" * 990 + "\r\n") * 3,
    "large": ("0123456789abcdef" * 4 + "\r\n") * 4000,
}
"""Of each message, by the kind that its subject names."""


@dataclass
class Exchange:
    """All that runs."""

    lab: GatewayNetwork
    senders: dict[str, Mta]
    receivers: dict[str, Mta]
    back: Sink
    sink: Sink

    def post(self, run: str, kinds: Mapping[str, str]) -> set[bytes]:
        """Hand each message to each server on the sender, one for each server on the MX; their marks."""
        return {
            self.submit(sender, receiver, f"{run}.{sender}.{receiver}.{number}", kind, body)
            for sender in self.senders
            for receiver in self.receivers
            for number, (kind, body) in enumerate(kinds.items())
        }

    def submit(self, sender: str, receiver: str, mark: str, kind: str, body: str) -> bytes:
        """Hand one message to a server on the sender; its mark."""
        octets = (HEADER.format(kind=kind, mark=mark) + "\r\n" + body).encode()
        recipients = [f"bob@{receiver}.example", f"carol@{receiver}.example"]
        port = self.senders[sender].place.port
        with Client(self.lab.sender, "127.0.0.1", port) as client:
            client.ehlo()
            options = ["BODY=8BITMIME"] if client.has_extn("8bitmime") else []
            reply = client.submit("alice@back.example", recipients, octets, options)
        if not reply.startswith("250 "):
            raise smtplib.SMTPException(f"{sender}: {mark}: {reply}")
        return mark.encode()

    def logs(self) -> str:
        """What the servers wrote lately."""
        parts = {"sender": self.senders, "mx": self.receivers}
        return "\n".join(
            f"== {name} on the {where}:\n{mta.log()[-1500:]}"
            for where, mtas in parts.items()
            for name, mta in mtas.items()
        )

    def wait_parted(self, seconds: float) -> None:
        """Until no server keeps a connection for more mail."""
        asked = ("ss", "--no-header", "--tcp", "state", "established", "dport = :25")
        assert until(lambda: not self.lab.sender.run(*asked).stdout, seconds), self.lab.sender.run(*asked).stdout


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Ask until it holds, or the time is over."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def text(arrived: Arrived) -> bytes:
    """The message as it was before the servers' trace fields; its dots are no longer doubled."""
    lines = arrived.text.split(b"\r\n")
    plain = b"\r\n".join(line[1:] if line[:1] == b"." else line for line in lines)
    return _RECEIVED.sub(b"", plain)


def judged(octets: bytes) -> tuple[bool, bytes]:
    """Whether the filter's field is in a message, and the message without it."""
    return octets.count(_JUDGED) == 1, octets.replace(_JUDGED, b"", 1)


@contextmanager
def exchange(
    lab: GatewayNetwork, directory: Path, senders: Names = NAMES, receivers: Names = NAMES
) -> Iterator[Exchange]:
    """Start these servers on both sides, and take all away at the end."""
    with ExitStack() as stack:
        for address in list(ADDRESSES.values())[1:]:
            lab.mx.run("ip", "addr", "add", f"{address}/24", "dev", "eth0")
            stack.callback(lab.mx.run, "ip", "addr", "del", f"{address}/24", "dev", "eth0")
        back, sink = Sink(lab.sender), Sink(lab.mx)
        stack.callback(back.stop)
        stack.callback(sink.stop)
        routes = {f"{name}.example": address for name, address in ADDRESSES.items()}
        sending, receiving = {}, {}
        for number, name in enumerate(senders):
            place = Place(SUBMISSION + number, back.port, "127.0.0.1", lab.sender, f"{name}.back.example", routes)
            sending[name] = _started(stack, name, directory / f"{name}-sender", place)
        for name in receivers:
            place = Place(25, sink.port, ADDRESSES[name], lab.mx, f"{name}.mx.example")
            receiving[name] = _started(stack, name, directory / f"{name}-mx", place)
        for mta in (*sending.values(), *receiving.values()):
            mta.wait_ready()
        yield Exchange(lab, sending, receiving, back, sink)


def _started(stack: ExitStack, name: str, folder: Path, place: Place) -> Mta:
    folder.mkdir()
    mta = START_BY_NAME[name](folder, place)
    stack.callback(mta.stop)
    return mta
