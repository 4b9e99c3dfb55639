"""Postfix as the reference: the same message and the same milter behind Postfix's smtpd, and behind ours.

Where they differ on purpose: Postfix gives the fields behind a deleted one other numbers, sendmail and we do not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.lab.network import Network
from proxsmtp_tp.smtp.envelope import Envelope
from tests.filters.reference import EDITS, MESSAGE, send_message
from tests.real.postfix import Postfix

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.filters.scripted import Scripted


@pytest.fixture(scope="module")
def postfix(directory: Path, scripted: Scripted) -> Iterator[Postfix]:
    """It asks the milter for each message, and delivers to a maildir."""
    folder = directory / "postfix"
    folder.mkdir(mode=0o755)
    scripted.socket.chmod(0o777)
    settings = {"smtpd_milters": f"unix:{scripted.socket}", "milter_default_action": "tempfail"}
    with Network() as network:
        host = network.host("mx")
        running = Postfix.start(host, folder, "gw.example", ("example.org", "example.net"), {}, settings)
        running.wait_ready()
        yield running


def send(postfix: Postfix, text: bytes) -> bytes:
    """Give Postfix the message; its last reply."""
    with postfix.host.connect("127.0.0.1", 25) as link:
        return send_message(link, text)


def delivered(postfix: Postfix) -> list[bytes]:
    """The delivered messages, without what Postfix has added to each."""
    messages = []
    for file in postfix.mailbox():
        text = file.read_bytes()
        text = re.sub(rb"\A(?:(?:Return-Path|Delivered-To|X-Original-To): .*\n)+", b"", text)
        messages.append(re.sub(rb"(?m)^Received: from client\.example .*\n(?:[ \t].*\n)*", b"", text, count=1))
    return messages


def both(scripted: Scripted, postfix: Postfix, **plan: Any) -> tuple[bytes, bytes]:
    """The message after the milter, behind ours and behind Postfix, with LF line ends."""
    ours = scripted.judge(MESSAGE, **plan).text.replace(b"\r\n", b"\n")
    postfix.empty_mailbox()
    assert send(postfix, MESSAGE).startswith(b"250 ")
    postfix.wait_mailbox(1, 60)
    return ours, delivered(postfix)[0]


def test_what_the_milter_is_shown(scripted: Scripted, postfix: Postfix) -> None:
    shown = []
    for ours in (True, False):
        if ours:
            scripted.judge(MESSAGE)
        else:
            scripted.begin()
            send(postfix, MESSAGE)
        shown.append(
            [event[:-1] for event in scripted.events if event[0] in {"envfrom", "envrcpt", "header", "eoh", "body"}]
        )
    assert shown[0] == shown[1]


def test_what_the_milter_is_shown_with_leading_space(scripted: Scripted, postfix: Postfix) -> None:
    shown = []
    for ours in (True, False):
        if ours:
            scripted.judge(MESSAGE, steps=0x100000)
        else:
            scripted.begin(steps=0x100000)
            send(postfix, MESSAGE)
        shown.append([event[1:3] for event in scripted.events if event[0] == "header"])
    assert shown[0] == shown[1]


@pytest.mark.parametrize("edits", EDITS)
@pytest.mark.parametrize("steps", [0, 0x100000])
def test_edits(scripted: Scripted, postfix: Postfix, edits: list[list[Any]], steps: int) -> None:
    ours, theirs = both(scripted, postfix, edits=edits, steps=steps)
    assert ours == theirs
    assert (b"X:" in ours) is any(edit[1] == "X" for edit in edits)


@pytest.mark.parametrize("stage", ["envfrom", "envrcpt", "data", "header", "eoh", "body", "eom"])
@pytest.mark.parametrize(
    "answer",
    [["554", "5.7.9", "100%% no"], ["451", "4.7.1", "later"], ["550", "5.7.1", "1", "2"], "REJECT", "TEMPFAIL"],
)
def test_refusals(scripted: Scripted, postfix: Postfix, stage: str, answer: Any) -> None:
    """The reply to the client is the same, where it is the filter's own."""
    judgement = scripted.judge(MESSAGE, answers={stage: answer}).judgement
    theirs = send(postfix, MESSAGE)
    assert judgement.reply is not None
    ours = judgement.reply.wire.splitlines(keepends=True)[-1]
    assert ours == theirs if isinstance(answer, list) else ours[:9] == theirs[:9]


def test_envelope(scripted: Scripted, postfix: Postfix) -> None:
    edits = [
        ["chgfrom", "<s@example.org>"],
        ["addrcpt", "<n@example.net>"],
        ["addrcpt", "o@example.net"],
        ["delrcpt", "b@example.org"],
    ]
    ours = scripted.judge(MESSAGE, edits=edits).envelope
    postfix.empty_mailbox()
    send(postfix, MESSAGE)
    postfix.wait_mailbox(2, 60)
    texts = [file.read_bytes() for file in postfix.mailbox()]
    recipients = sorted(match[1] for text in texts for match in re.finditer(rb"(?m)^X-Original-To: (.*)$", text))
    senders = {match[1] for text in texts for match in re.finditer(rb"(?m)^Return-Path: <(.*)>$", text)}
    assert ours == Envelope(b"s@example.org", b"", recipients, [b"", b""])
    assert senders == {b"s@example.org"}
