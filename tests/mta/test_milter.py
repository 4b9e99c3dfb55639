"""sendmail as the second reference: the same message and the same milter behind it, and behind ours.

tests/filters/test_postfix.py does it with Postfix and the same edits: where both agree, ours does what they do.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.filters.daemons import daemon
from tests.filters.reference import EDITS, MESSAGE, send_message
from tests.filters.scripted import Scripted
from tests.mta.servers import Mta, Place, start_sendmail
from tests.mta.sink import Sink, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = Path(__file__).parents[1] / "filters/scripted_milter.py"
PORT = 2525
SECONDS = 60.0

OF_SENDMAIL_ALONE = [
    # Positions count the fields that its configuration may add, also where they are not in the message.
    [["addheader", "X", "y", 2]],
    [["addheader", "X", "y", 4]],
    [["addheader", "X", "1", 1], ["addheader", "X", "2", 1], ["addheader", "X", "3"]],
    # It keeps the name as it was written.
    [["chgheader", "a", 2, "new"]],
    # A new field is the first one.
    [["chgheader", "A", 9, "new"]],
    [["chgheader", "Subject", 1, "new"], ["addheader", "Subject", "second"]],
]
"""Here Postfix differs, and ours does as Postfix does (test_postfix.py): the same lines, in another order or case."""


class Sendmail:
    """sendmail, the milter that it asks, and the server that it gives the mail to."""

    def __init__(self, mta: Mta, scripted: Scripted, sink: Sink) -> None:
        self.mta = mta
        self.scripted = scripted
        self.sink = sink

    def send(self, **plan: Any) -> bytes:
        """Give it the message; its last reply."""
        self.scripted.begin(**plan)
        with self.mta.place.connect(SECONDS) as link:
            return send_message(link, MESSAGE)

    def delivered(self, **plan: Any) -> bytes:
        """The message after the milter, without sendmail's own Received."""
        before = len(self.sink.all)
        assert self.send(**plan).startswith(b"250 ")
        end = time.monotonic() + SECONDS
        while len(self.sink.all) == before:
            assert time.monotonic() < end, self.mta.log()
            time.sleep(0.02)
        text = re.sub(rb"(?m)^\.\.", b".", self.sink.all[-1].text)
        return re.sub(rb"(?m)^Received: from client\.example .*\r\n(?:[ \t].*\r\n)*", b"", text, count=1)


@pytest.fixture(scope="module")
def sendmail(directory: Path) -> Iterator[Sendmail]:
    folder = directory / "milter"
    folder.mkdir()
    with serving(Sink()) as sink:
        mta = start_sendmail(folder, Place(PORT, sink.port), "/run/milter")
        try:
            assert mta.root is not None
            scripted = Scripted(mta.root / "run")
            scripted.plan.write_text("{}")
            with daemon(["/usr/bin/python3", SCRIPT, scripted.plan, scripted.seen, scripted.socket], scripted.socket):
                mta.wait_ready()
                yield Sendmail(mta, scripted, sink)
        finally:
            mta.stop()


@pytest.mark.parametrize("edits", EDITS)
@pytest.mark.parametrize("steps", [0, 0x100000])
def test_edits(sendmail: Sendmail, edits: list[list[Any]], steps: int) -> None:
    ours = sendmail.scripted.judge(MESSAGE, edits=edits, steps=steps).text
    theirs = sendmail.delivered(edits=edits, steps=steps)
    assert (ours == theirs) is (edits not in OF_SENDMAIL_ALONE)
    assert sorted(ours.lower().splitlines()) == sorted(theirs.lower().splitlines())


def test_what_the_milter_is_shown(sendmail: Sendmail) -> None:
    shown = []
    for ours in (True, False):
        if ours:
            sendmail.scripted.judge(MESSAGE)
        else:
            sendmail.send()
        events = sendmail.scripted.events
        shown.append([event[:-1] for event in events if event[0] in {"envfrom", "envrcpt", "header", "eoh", "body"}])
    assert shown[0] == shown[1]


@pytest.mark.parametrize("stage", ["envfrom", "envrcpt", "data", "header", "eoh", "body", "eom"])
@pytest.mark.parametrize(
    "answer",
    [["554", "5.7.9", "100%% no"], ["451", "4.7.1", "later"], ["550", "5.7.1", "1", "2"], "REJECT", "TEMPFAIL"],
)
def test_refusals(sendmail: Sendmail, stage: str, answer: Any) -> None:
    """The reply to the client is the same, where it is the filter's own; else it has the words of each MTA."""
    judgement = sendmail.scripted.judge(MESSAGE, answers={stage: answer}).judgement
    theirs = sendmail.send(answers={stage: answer})
    assert judgement.reply is not None
    ours = judgement.reply.wire.splitlines(keepends=True)[-1]
    assert ours == theirs if isinstance(answer, list) else ours[:1] == theirs[:1]


def test_envelope(sendmail: Sendmail) -> None:
    edits = [
        ["chgfrom", "<s@example.org>"],
        ["addrcpt", "<n@example.net>"],
        ["addrcpt", "o@example.net"],
        ["delrcpt", "b@example.org"],
    ]
    ours = sendmail.scripted.judge(MESSAGE, edits=edits).envelope
    sendmail.delivered(edits=edits)
    arrived = sendmail.sink.all[-1]
    address = re.compile(rb"<(.*?)>")
    senders, recipients = address.findall(arrived.sender), address.findall(b" ".join(arrived.recipients))
    assert (ours.sender, ours.recipients) == (senders[0], sorted(recipients))
