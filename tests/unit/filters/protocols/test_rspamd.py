"""What an answer of rspamd means: the same as in its milter mode."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.filters.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    DeleteRecipient,
    InsertHeader,
    Quarantine,
    RemoveHeader,
)
from proxsmtp_tp.filters.protocols.answers import Head
from proxsmtp_tp.filters.protocols.errors import ProtocolError
from proxsmtp_tp.filters.protocols.rspamd import RspamdAnswer, json_size, parse_answer, request_head
from proxsmtp_tp.filters.verdict import Action

NAMES = [b"Received", b"X-Spam", b"Subject", b"x-spam"]
PASS, REJECT, TEMPFAIL, DISCARD = Action.PASS, Action.REJECT, Action.TEMPFAIL, Action.DISCARD


def meant(action: str, **known: Any) -> RspamdAnswer:
    return parse_answer(json.dumps({"action": action, "score": 1.5, **known}).encode(), NAMES)


def test_request() -> None:
    assert request_head(3, [(b"IP", b"192.0.2.7"), (b"Helo", b"a\r\nX: b")]) == (
        b"POST /checkv2 HTTP/1.1\r\nIP: 192.0.2.7\r\nHelo: a??X: b\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize("action", ["no action", "greylist", "something new"])
def test_passes(action: str) -> None:
    assert meant(action) == RspamdAnswer(PASS, None, (), action, 1.5)


@pytest.mark.parametrize(
    ("action", "known", "decision", "wire"),
    [
        ("reject", {}, REJECT, b"554 5.7.1 Spam message rejected\r\n"),
        ("reject", {"messages": {"smtp_message": "No\r\n250 x"}}, REJECT, b"554 5.7.1 No  250 x\r\n"),
        ("soft reject", {}, TEMPFAIL, b"451 4.7.1 Try again later\r\n"),
        ("soft reject", {"messages": {"smtp_message": "Greylisted"}}, TEMPFAIL, b"451 4.7.1 Greylisted\r\n"),
        ("discard", {}, DISCARD, None),
        ("reject", {"milter": {"reject": "discard"}}, DISCARD, None),
    ],
)
def test_refusals(action: str, known: dict[str, Any], decision: Action, wire: bytes | None) -> None:
    answer = meant(action, **known)
    assert answer.decision is decision
    assert (answer.reply.wire if answer.reply else None) == wire
    assert answer.edits == ()


@pytest.mark.parametrize(
    ("action", "known", "edits"),
    [
        ("quarantine", {}, (Quarantine("Spam message quarantined"),)),
        ("reject", {"milter": {"reject": "quarantine"}}, (Quarantine("Spam message quarantined"),)),
        ("reject", {"milter": {"no_action": True}}, (AddHeader(b"X-Rspamd-Action", b"reject"),)),
        ("rewrite subject", {"subject": "*** x"}, (ChangeHeader(b"Subject", 1, b"*** x"),)),
        ("rewrite subject", {}, ()),
        (
            "add header",
            {},
            (RemoveHeader(b"X-Spam"), ChangeHeader(b"X-Spam", 1, b"Yes")),
        ),
        ("add header", {"milter": {"spam_header": {"Y": "z"}}}, (ChangeHeader(b"Y", 1, b"z"),)),
        (
            "add header",
            {"milter": {"spam_header": "Very"}},
            (RemoveHeader(b"X-Spam"), ChangeHeader(b"X-Spam", 1, b"Very")),
        ),
        ("no action", {"milter": {"spam_header": "Very"}}, ()),
        ("no action", {"dkim-signature": "v=1"}, (InsertHeader(1, b"DKIM-Signature", b"v=1"),)),
        (
            "no action",
            {"dkim-signature": ["v=1", "v=2"]},
            (InsertHeader(1, b"DKIM-Signature", b"v=1"), InsertHeader(2, b"DKIM-Signature", b"v=2")),
        ),
        (
            "no action",
            {"milter": {"remove_headers": {"X-Spam": 0, "Subject": -1, "Received": 1, "No": 1}}},
            (
                RemoveHeader(b"X-Spam"),
                ChangeHeader(b"Subject", 1, b""),
                ChangeHeader(b"Received", 1, b""),
            ),
        ),
        (
            "no action",
            {"milter": {"remove_headers": {"X-Spam": [1, 2, 3, -3, "x"]}}},
            (
                ChangeHeader(b"X-Spam", 1, b""),
                ChangeHeader(b"X-Spam", 2, b""),
            ),
        ),
        (
            "no action",
            {
                "milter": {
                    "add_headers": {"A": "b", "C": ["d", {"value": "e", "order": 0}], "F": {"value": "g", "order": -1}}
                }
            },
            (AddHeader(b"A", b"b"), AddHeader(b"C", b"d"), InsertHeader(0, b"C", b"e"), AddHeader(b"F", b"g")),
        ),
        ("no action", {"milter": {"add_headers": {"A": {"value": "b", "index": -9}}}}, (InsertHeader(0, b"A", b"b"),)),
        (
            "no action",
            {"milter": {"add_headers": {"A": {"value": "b", "order": -2}, "C": {"value": "d", "order": -3}}}},
            (InsertHeader(4, b"A", b"b"), InsertHeader(4, b"C", b"d")),
        ),
        (
            "no action",
            {"milter": {"change_from": "a@x", "add_rcpt": ["b@x"], "del_rcpt": ["c@x", 1]}},
            (ChangeSender(b"a@x"), AddRecipient(b"b@x"), DeleteRecipient(b"c@x")),
        ),
        ("no action", {"milter": []}, ()),
        ("no action", {"milter": {"add_headers": {"A": 1, "B": {"value": 2}}}}, ()),
    ],
)
def test_edits(action: str, known: dict[str, Any], edits: tuple[object, ...]) -> None:
    answer = meant(action, **known)
    assert answer.decision is PASS
    assert answer.edits == edits


def test_octets_that_are_no_utf8_stay() -> None:
    answer = parse_answer(b'{"action":"no action","milter":{"add_headers":{"A":"\xe9","B":"\\ud800"}}}', [])
    assert answer.edits == (AddHeader(b"A", b"\xe9"), AddHeader(b"B", b"?"))


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"action":1}',
        b'{"error":"no"}',
        b"[" * 100_000,
        b'{"action":"x","score":' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_answer(octets: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_answer(octets, [])


def test_more_edits_than_are_taken() -> None:
    with pytest.raises(ProtocolError, match="more than 1000 edits"):
        meant("no action", milter={"remove_headers": {"Received": [1] * 1001}})


@pytest.mark.parametrize("score", [10**400, True, None, "5"])
def test_odd_scores(score: object) -> None:
    assert meant("no action", score=score).score in {0.0, 1.0}


@pytest.mark.parametrize(
    ("start", "offset", "size"),
    [(b"HTTP/1.1 200 OK", None, None), (b"HTTP/1.0 200 OK", b"12", 12)],
)
def test_heads(start: bytes, offset: bytes | None, size: int | None) -> None:
    assert json_size(Head(start, ((b"message-offset", offset),) if offset else ())) == size


@pytest.mark.parametrize(
    ("start", "offset"),
    [
        (b"HTTP/1.1 403 Forbidden", None),
        (b"HTTP/1.1 500 x", None),
        (b"SPAMD/1.1 0 EX_OK", None),
        (b"HTTP/1.1 200 OK", b"-1"),
    ],
)
def test_heads_without_a_verdict(start: bytes, offset: bytes | None) -> None:
    with pytest.raises(ProtocolError):
        json_size(Head(start, ((b"message-offset", offset),) if offset else ()))


_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
_KEYS = ["remove_headers", "add_headers", "change_from", "add_rcpt", "del_rcpt", "reject", "no_action", "spam_header"]
_ACTIONS = st.sampled_from(
    ["reject", "soft reject", "add header", "rewrite subject", "quarantine", "discard", "no action"]
)


@given(_ACTIONS, st.dictionaries(st.sampled_from(_KEYS), _VALUES), _VALUES, _VALUES, _VALUES)
def test_any_json(action: str, block: dict[str, Any], signature: Any, messages: Any, score: Any) -> None:
    known = {"milter": block, "dkim-signature": signature, "messages": messages, "score": score, "subject": score}
    answer = meant(action, **known)
    assert (answer.reply is not None) is (answer.decision in {REJECT, TEMPFAIL})
