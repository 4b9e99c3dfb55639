"""Two real Postfixes, one on each side of the gateway: the first sends messages, and what the second got is checked."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from proxsmtp_tp.lab import network
from proxsmtp_tp.lab.client import Client
from tests.real.corpus import CorpusMessage, Outcome
from tests.real.postfix import Postfix

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DOMAINS = ("v4.example", "v6.example")
"""Recipients' domains by the IP version that their mail takes."""
REFUSAL = "550 5.7.1 This is the GTUBE test string: refused by the filter"

_TRACE = re.compile(rb"(?:(?:Return-Path|X-Original-To|Delivered-To|Received|X-Filter): [^\n]*\n(?:[ \t][^\n]*\n)*)+")
"""What MTAs, and our sample filter, put before a message."""


@dataclass(frozen=True, slots=True)
class PostfixPair:
    """`sender` has a queue and bounces, `mx` has the mailbox."""

    lab: network.GatewayNetwork
    sender: Postfix
    mx: Postfix

    @classmethod
    def open(cls, lab: network.GatewayNetwork, directory: Path) -> Self:
        """Start both. `directory` must be open to everybody."""
        for name in ("sender", "mx"):
            (directory / name).mkdir()
        routes = {"v4.example": f"smtp:[{network.MX_V4}]", "v6.example": f"smtp:[IPv6:{network.MX_V6}]"}
        back = {"sender.example": f"smtp:[{network.SENDER_V4}]"}
        sender = Postfix.start(lab.sender, directory / "sender", "sender.example", ("sender.example",), routes)
        mx = Postfix.start(lab.mx, directory / "mx", "mx.example", DOMAINS, back)
        sender.wait_ready()
        mx.wait_ready()
        return cls(lab, sender, mx)

    def send(self, messages: Sequence[CorpusMessage]) -> None:
        """Hand the messages to the sender's Postfix, exactly as they are, and wait until all are settled.

        No connection is left behind: the next messages take the way that is theirs then.
        """
        self.sender.empty_mailbox()
        self.mx.empty_mailbox()
        with Client(self.lab.sender, "127.0.0.1") as client:
            client.ehlo()
            for message in messages:
                reply = client.submit(
                    message.sender, message.recipients, message.octets, message.mail_options, message.rcpt_options
                )
                assert reply.startswith("250 "), f"{message.name}: {reply}"
        copies = sum(len(message.recipients) for message in messages if message.outcome is Outcome.DELIVERED)
        notices = sum(message.report or message.outcome is Outcome.REFUSED for message in messages)
        self.mx.wait_mailbox(copies, 60)
        try:
            self.sender.wait_mailbox(notices, 60)
        except network.LabError as error:  # the delivery reports come from there
            error.add_note(f"the MX:\n{self.mx.log[-4000:]}")
            raise
        self.sender.wait_idle(30)
        self.sender.wait_parted(30)
        self.mx.wait_idle(30)

    def check(self, messages: Sequence[CorpusMessage], *, filtered: bool) -> None:
        """Each delivered message arrived once for each recipient, byte for byte; no other arrived.

        `filtered`: each has our sample filter's header, or none has.
        """
        wanted = {message.name: message for message in messages}
        arrived: Counter[tuple[str, str]] = Counter()
        for file in self.mx.mailbox():
            text = file.read_bytes()
            name, recipient = _field(text, b"X-Corpus"), _field(text, b"X-Original-To")
            arrived[name, recipient] += 1
            sent = wanted[name].octets.replace(b"\r\n", b"\n")
            trace = text.removesuffix(sent)
            assert trace != text, f"{name} arrived changed:\n{_difference(sent, text)}"
            assert _TRACE.fullmatch(trace), f"{name} has other headers before it than an MTA's: {trace!r}"
            assert trace.count(b"\nX-Filter: passed; ") == filtered, f"{name}: {trace!r}"
            assert _field(text, b"Return-Path") == f"<{wanted[name].sender}>"
        delivered = (message for message in messages if message.outcome is Outcome.DELIVERED)
        assert arrived == Counter((message.name, to) for message in delivered for to in message.recipients)

    def clients(self) -> set[str]:
        """The addresses that the MX saw messages come from."""
        pattern = re.compile(rb"^Received: from sender.example \(unknown \[(?:IPv6:)?([^]]+)\]\)", re.MULTILINE)
        return {match[1].decode() for file in self.mx.mailbox() if (match := pattern.search(file.read_bytes()))}

    def notices(self) -> list[str]:
        """What the sender's Postfix, or the MX, wrote to the sender: bounces and delivery reports."""
        return [file.read_text("utf-8", "backslashreplace") for file in self.sender.mailbox()]


def _field(text: bytes, name: bytes) -> str:
    """The value of a header field; the first, if there are several."""
    match = re.search(rb"^" + name + rb": ([^\n]*)$", text, re.MULTILINE)
    assert match is not None, f"no {name!r} in {text[:2000]!r}"
    return match[1].decode()


def _difference(sent: bytes, arrived: bytes) -> str:
    """Where the two first differ, counted from the end, since headers were added before."""
    at = next(
        (place for place, (a, b) in enumerate(zip(reversed(sent), reversed(arrived), strict=False)) if a != b),
        min(len(sent), len(arrived)),
    )
    around = slice(-at - 60 if at + 60 < len(sent) else None, -at + 20 if at > 20 else None)
    return f"{at} octets before the end\n  sent:    {sent[around]!r}\n  arrived: {arrived[around]!r}"
