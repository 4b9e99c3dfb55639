"""What a peer, server or filter says cannot forge a field of a log line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.telemetry import log_lines
from proxsmtp_tp.telemetry.facts import Refusal, Seconds, SessionEnd, TlsLeg, Transaction
from proxsmtp_tp.telemetry.quoting import LIMIT, fields, printable, quoted, shown

WORDS = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.sampled_from(
            [b"a", b", status=FILTERED", b'"', b"\\", b", id=01JD8Q3K7C2VA", b" ", b",", b"=", b"\r\n", b"\xff"]
        ),
        max_size=8,
    ).map(b"".join),
)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("bob@example.org", "bob@example.org"),
        ("250 2.0.0 Ok: queued as 4F", "250 2.0.0 Ok: queued as 4F"),
        ("SRS0=x=y=example.org=bob@example.net", "SRS0=x=y=example.org=bob@example.net"),
        ("no, thanks", '"no, thanks"'),
        ('"a b"@example.org', '"\\"a b\\"@example.org"'),
        ('say "a, b" \\', '"say \\"a, b\\" \\\\"'),
        (" a", '" a"'),
        ("", ""),
        ("x" * 500, "x" * LIMIT + "..."),
    ],
)
def test_values(text: str, line: str) -> None:
    assert quoted(text) == line


@given(st.lists(WORDS, min_size=1, max_size=5))
def test_every_value_is_read_back(values: list[bytes]) -> None:
    line = ", ".join(f"f{at}={shown(value)}" for at, value in enumerate(values))
    assert fields(line) == [(f"f{at}", printable(value)) for at, value in enumerate(values)]
    assert line.isprintable()


@pytest.mark.parametrize("line", ['a="b', 'a="b"c=d', "a", 'a="b\\', "a=b,c=d"])
def test_what_is_no_line_of_fields(line: str) -> None:
    with pytest.raises(ValueError, match="no "):
        fields(line)


@given(WORDS, WORDS, WORDS, WORDS, WORDS, WORDS, st.booleans())
def test_no_field_of_a_message_is_forged(
    sender: bytes, recipient: bytes, reply: bytes, helo: bytes, said: bytes, message_id: bytes, changed: bool
) -> None:
    recipients = [recipient, recipient]
    facts = Transaction(1, printable(said) or "FILTER-ERROR", "198.51.100.25", helo, sender, recipients, [])
    facts.reply, facts.verdict, facts.filter_words = reply, "reject", printable(said)
    facts.size, facts.changed, facts.message_id = 7, changed, message_id
    facts.client_tls = TlsLeg("TLSv1.3", "TLS_AES_256_GCM_SHA384", "mx.example")
    facts.server_tls = TlsLeg("TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384", "mx.example", "verified")
    facts.seconds = Seconds(1.0)
    facts.seconds.filter = 0.5
    line = log_lines.transaction("192.0.2.10", facts)
    optional = {"reply": reply, "filter": printable(said).encode(), "helo": helo, "message-id": message_id}
    expected = ["client", "from", "to", "to", "status", "server", "reply", "filter", "size", "helo", "message-id"]
    expected += ["client_tls", "server_tls", "changed", "filter-seconds", "seconds"]
    found = fields(line)
    assert [name for name, _ in found] == [name for name in expected if optional.get(name, b"x")]
    assert dict(found)["from"] == (printable(sender) or "<>")
    assert dict(found)["server"] == "198.51.100.25"
    assert (dict(found)["client_tls"], dict(found)["server_tls"]) == ("TLSv1.3", "TLSv1.2/verified")


@given(WORDS, WORDS, WORDS, WORDS)
def test_no_field_of_the_other_lines_is_forged(sender: bytes, recipient: bytes, reply: bytes, helo: bytes) -> None:
    refusal = Refusal("RCPT", "198.51.100.25", sender, recipient, reply)
    names = [name for name, _ in fields(log_lines.refusal("192.0.2.10", refusal))]
    assert names == ["client", "from", "to", "refused", "server", "reply"]
    end = SessionEnd("198.51.100.25", helo, "quit", {"ehlo": (1, 0), "rcpt": (3, 2)}, 1, 1, 0.25)
    found = dict(fields(log_lines.session_end("192.0.2.10", end)))
    assert found.get("helo", "") == printable(helo)
    assert (found["commands"], found["rcpt"], found["seconds"]) == ("2/4", "1/3", "0.250")


def test_a_line_with_the_longest_values_is_not_cut() -> None:
    facts = Transaction(1, "s" * 999, "198.51.100.25", b"h" * 999, b"f" * 999, [b"t" * 999] * 30, [])
    facts.reply, facts.verdict, facts.filter_words, facts.message_id = b"r" * 9999, "reject", "w" * 999, b"m" * 999
    assert len(log_lines.transaction("192.0.2.10", facts)) < 3600
