"""The real libmilter, with a filter that does what each test says: every action at every stage, macros, edits."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.filters.member import FilterFailedError
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.envelope import Envelope
from proxsmtp_tp.smtp.login import Login
from tests.unit.filters.member_harness import TEXT, describe

if TYPE_CHECKING:
    from tests.filters.scripted import Scripted

STAGES = ["connect", "hello", "envfrom", "envrcpt", "data", "header", "eoh", "body", "eom"]
SILENT = 0xFF080 & ~0x20000
LEADING_SPACE = 0x100000


def test_events(scripted: Scripted) -> None:
    envelope = Envelope(b"a@x.example", b"SIZE=9", [b"b@x.example", b"c@x.example"], [b"", b"NOTIFY=NEVER"])
    judged = scripted.judge(known={"envelope": envelope, "authenticated": True, "server_port": 25})
    assert judged.text == TEXT
    events = [event[:-1] for event in scripted.events if event[0] != "negotiate"]
    assert events == [
        ["connect", "[192.0.2.7]", 2, ["192.0.2.7", 999]],
        ["hello", "client.example"],
        ["envfrom", "<a@x.example>", "SIZE=9"],
        ["envrcpt", "<b@x.example>"],
        ["envrcpt", "<c@x.example>", "NOTIFY=NEVER"],
        ["data"],
        ["header", "Received", "from a\n\tby b"],
        ["header", "Subject", "hello"],
        ["header", "From", "<a@example.org>"],
        ["eoh"],
        ["body", 15],
        ["eom"],
    ]
    assert scripted.events[0] == ["negotiate", 0x1FF, 0x1FF7FF]


def test_macros(scripted: Scripted) -> None:
    scripted.judge(known={"authenticated": True, "server_port": 25, "login": Login(b"PLAIN", b"ann")})
    known = {event[0]: event[-1] for event in scripted.events if event[0] != "negotiate"}
    assert known["connect"] == {
        "j": "gw.example",
        "_": "unknown [192.0.2.7]",
        "{daemon_name}": "gw.example",
        "{client_addr}": "192.0.2.7",
        "{daemon_port}": "25",
        "v": "proxsmtp-tp",
    }
    assert known["envfrom"]["i"] == "t1"
    assert known["envfrom"]["{auth_type}"] == "PLAIN"
    assert known["envfrom"]["{auth_authen}"] == "ann"
    assert known["envrcpt"]["{rcpt_addr}"] == "b@example.org"
    for stage in ("eoh", "eom"):
        assert (known[stage]["i"], known[stage]["{mail_addr}"]) == ("t1", "a@example.org")


def test_macros_that_the_filter_names(scripted: Scripted) -> None:
    scripted.judge(symbols={"M_CONNECT": ["j", "{client_addr}"], "M_ENVFROM": ["{mail_addr}"]})
    known = {event[0]: event[-1] for event in scripted.events if event[0] != "negotiate"}
    assert known["connect"] == {"j": "gw.example", "{client_addr}": "192.0.2.7"}
    assert "i" not in known["envfrom"]


def test_check(scripted: Scripted) -> None:
    scripted.plan.write_text(json.dumps({"symbols": {"M_CONNECT": ["j"]}, "steps": SILENT}))
    lines = asyncio.run(describe(f"m milter {scripted.socket}"))
    assert "milter protocol version 6" in lines[0]
    assert "macros at connect: j" in lines
    assert "silent_body" in lines[2]


@pytest.mark.parametrize("steps", [0, SILENT, SILENT | LEADING_SPACE])
@pytest.mark.parametrize(
    "text", [TEXT, TEXT + b"x" * 70_000 + b"\r\n", b"no header\r\n", b"A:b\r\nC: \xe9\x00d\r\n\r\n"]
)
def test_passes_octet_for_octet(scripted: Scripted, steps: int, text: bytes) -> None:
    assert scripted.judge(text, steps=steps).text == text


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("answer", "action", "wire"),
    [
        ("REJECT", Action.REJECT, b"550 5.7.1 "),
        ("TEMPFAIL", Action.TEMPFAIL, b"451 4.7.1 "),
        (["554", "5.7.9", "100%% no"], Action.REJECT, b"554 5.7.9 100% no\r\n"),
        (["550", "5.7.1", "one", "two"], Action.REJECT, b"550-5.7.1 one\r\n550 5.7.1 two\r\n"),
        (["421", "4.7.0", "bye"], Action.TEMPFAIL, b"451 4.7.0 bye\r\n"),
    ],
)
def test_refusals(scripted: Scripted, stage: str, answer: Any, action: Action, wire: bytes) -> None:
    judgement = scripted.judge(answers={stage: answer}).judgement
    assert judgement.action is action
    assert judgement.reply is not None
    assert judgement.reply.wire.startswith(wire)
    assert judgement.edits == ()


@pytest.mark.parametrize("stage", STAGES)
def test_acceptance(scripted: Scripted, stage: str) -> None:
    judged = scripted.judge(answers={stage: "ACCEPT"}, edits=[["addheader", "A", "b"]])
    assert judged.judgement.action is Action.PASS
    assert (b"A: b\r\n" in judged.text) is (stage == "eom")
    assert scripted.events[-1][0] == stage


@pytest.mark.parametrize("stage", STAGES)
def test_discard(scripted: Scripted, stage: str) -> None:
    if stage in {"connect", "hello"}:
        with pytest.raises(FilterFailedError, match="no answer to"):
            scripted.judge(answers={stage: "DISCARD"})
    else:
        assert scripted.judge(answers={stage: "DISCARD"}).judgement.action is Action.DISCARD


def test_one_refused_recipient(scripted: Scripted) -> None:
    envelope = Envelope(b"a@x.example", b"", [b"b@x.example", b"c@x.example", b"d@x.example"], [b"", b"", b""])
    answers = {"envrcpt:<b@x.example>": "REJECT", "envrcpt:<c@x.example>": "TEMPFAIL"}
    judgement = scripted.judge(answers=answers, known={"envelope": envelope}).judgement
    assert judgement.action is Action.TEMPFAIL
    assert [event[1] for event in scripted.events if event[0] == "envrcpt"] == [
        "<b@x.example>",
        "<c@x.example>",
        "<d@x.example>",
    ]


def test_skip_of_the_body(scripted: Scripted) -> None:
    judged = scripted.judge(TEXT + b"x" * 200_000 + b"\r\n", answers={"body": "SKIP"}, steps=0x400)
    assert judged.judgement.action is Action.PASS
    assert len([event for event in scripted.events if event[0] == "body"]) == 1


HEADER = b"A: 1\r\nB: 2\r\nA: 3\r\nC: 4\r\n"


@pytest.mark.parametrize(
    ("edits", "header"),
    [
        ([["addheader", "X", "y"]], HEADER + b"X: y\r\n"),
        ([["addheader", "X", "y\n\tz"]], HEADER + b"X: y\r\n\tz\r\n"),
        ([["addheader", "X", "y\nz"]], HEADER + b"X: y\r\n\tz\r\n"),
        ([["addheader", "X", "y", 0]], b"X: y\r\n" + HEADER),
        ([["addheader", "X", "y", 1]], b"X: y\r\n" + HEADER),
        ([["addheader", "X", "y", 2]], b"A: 1\r\nX: y\r\nB: 2\r\nA: 3\r\nC: 4\r\n"),
        ([["addheader", "X", "y", 2147483647]], HEADER + b"X: y\r\n"),
        ([["chgheader", "a", 2, "new"]], b"A: 1\r\nB: 2\r\na: new\r\nC: 4\r\n"),
        ([["chgheader", "A", 0, "new"]], b"A: new\r\nB: 2\r\nA: 3\r\nC: 4\r\n"),
        ([["chgheader", "A", 1, ""]], b"B: 2\r\nA: 3\r\nC: 4\r\n"),
        ([["chgheader", "A", 1, ""], ["chgheader", "A", 2, ""]], b"B: 2\r\nC: 4\r\n"),
        ([["chgheader", "A", 9, "new"]], HEADER + b"A: new\r\n"),
        ([["chgheader", "D", 1, ""]], HEADER),
        ([["replacebody", "new\nbody\r\n"]], HEADER),
        ([["progress"], ["addheader", "X", "y"], ["progress"]], HEADER + b"X: y\r\n"),
    ],
)
@pytest.mark.parametrize("steps", [0, LEADING_SPACE])
def test_header_edits(scripted: Scripted, edits: list[list[Any]], header: bytes, steps: int) -> None:
    if steps:  # such a filter writes the space itself
        edits = [
            [
                name,
                *(
                    " " + word
                    if at == len(given) - 1 - (isinstance(given[-1], int) and name == "addheader")
                    and word
                    and name != "replacebody"
                    else word
                    for at, word in enumerate(given)
                ),
            ]
            for name, *given in edits
        ]
    judged = scripted.judge(HEADER + b"\r\nbody\r\n", edits=edits, steps=steps)
    body = b"new\r\nbody\r\n" if edits[0][0] == "replacebody" else b"body\r\n"
    assert judged.text == header + b"\r\n" + body


def test_envelope_edits(scripted: Scripted) -> None:
    edits = [
        ["chgfrom", "<s@x.example>", "RET=HDRS"],
        ["addrcpt", "<n@x.example>", "NOTIFY=NEVER"],
        ["addrcpt", "o@x.example"],
    ]
    judged = scripted.judge(edits=[*edits, ["delrcpt", "<b@example.org>"]])
    assert judged.envelope == Envelope(
        b"s@x.example", b"RET=HDRS", [b"n@x.example", b"o@x.example"], [b"NOTIFY=NEVER", b""]
    )


def test_quarantine(scripted: Scripted) -> None:
    judged = scripted.judge(edits=[["quarantine", "for a reason"], ["addheader", "X", "y"]])
    assert judged.quarantine == "for a reason"
    assert b"X: y\r\n" in judged.text


def test_a_large_new_body(scripted: Scripted) -> None:
    chunk = "x" * 60_000 + "\r\n"
    judged = scripted.judge(edits=[["replacebody", chunk]] * 20)
    assert judged.text == TEXT.replace(b"Good morning.\r\n", chunk.encode() * 20)


def test_a_field_that_libmilter_would_not_take(scripted: Scripted) -> None:
    judgement = scripted.judge(b"Long: " + b"x" * 66_000 + b"\r\n\r\n").judgement
    assert (judgement.action, judgement.reply.wire[:9] if judgement.reply else b"") == (Action.REJECT, b"552 5.3.4")
    assert scripted.judge(b"Long: " + b"x" * 65_000 + b"\r\n\r\n").judgement.action is Action.PASS


@pytest.mark.parametrize("edits", [[["addheader", "X Y", "z"]], [["addheader", "X", "a\rb"]], [["addrcpt", "a b@x"]]])
def test_edits_that_are_none(scripted: Scripted, edits: list[list[Any]]) -> None:
    with pytest.raises(ValueError, match=r"name|CR|address"):
        scripted.judge(edits=edits)
