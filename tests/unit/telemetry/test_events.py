"""Events: they follow the schema in docs, whatever peers say, and no place where they go makes mail wait."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.cli import events as command
from proxsmtp_tp.cli.main import main
from proxsmtp_tp.telemetry import event_log, events
from proxsmtp_tp.telemetry.addresses import Addresses
from proxsmtp_tp.telemetry.event_log import BACKLOG_MAX, EventLog
from proxsmtp_tp.telemetry.events import OCTETS_MAX, Who, encoded
from proxsmtp_tp.telemetry.facts import FilterJudged, LimitHit, Seconds, TlsLeg, Transaction

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/event.schema.json").read_text("utf-8"))
KINDS = {kind["properties"]["event"]["const"]: kind for kind in SCHEMA["oneOf"]}
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "null": type(None),
}
WHO = Who("000001", "01JD8Q3K7C2VA", "192.0.2.7", 40112, "inbound", 3)


def check(value: Any, schema: dict[str, Any], where: str = "event") -> None:
    """The keywords that the schema uses (JSON Schema 2020-12); an unknown one fails."""
    known = {
        "$schema",
        "title",
        "description",
        "type",
        "required",
        "additionalProperties",
        "properties",
        "const",
        "enum",
    }
    known |= {"pattern", "minimum", "maximum", "items", "maxItems"}
    assert not schema.keys() - known
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    assert not kinds or any(isinstance(value, TYPES[kind]) for kind in kinds), (where, value)
    assert "integer" not in kinds or not isinstance(value, bool), where
    assert value == schema.get("const", value), where
    assert value in schema.get("enum", [value]), (where, value)
    if isinstance(value, str):
        assert re.search(schema.get("pattern", ""), value), (where, value)
    if isinstance(value, int):
        assert schema.get("minimum", value) <= value <= schema.get("maximum", value), where
    if isinstance(value, list):
        assert len(value) <= schema["maxItems"]
        for each in value:
            check(each, schema["items"], f"{where}[]")
    if isinstance(value, dict):
        assert not set(schema.get("required", ())) - value.keys(), (where, value)
        assert not value.keys() - schema["properties"].keys(), (where, value)
        for name, each in value.items():
            check(each, schema["properties"][name], f"{where}.{name}")


ANY = st.binary(max_size=400)
REPLY = st.one_of(
    st.just(b""),
    st.tuples(st.sampled_from([b"250 ", b"451 4.7.1 ", b"550 5.7.1 "]), ANY).map(lambda two: two[0] + two[1]),
)


JUDGED = st.builds(
    FilterJudged,
    st.just("virus"),
    st.sampled_from(["pass", "edit", "reject", "quarantine", "failed", "skipped", "tag"]),
    st.floats(0, 9),
    st.text(max_size=400),
)
HITS = st.builds(
    LimitHit,
    limit=st.sampled_from(["ClientRejects", "ClientMessages"]),
    value=st.sampled_from(["", "30/10m shadow"]),
    action=st.sampled_from(["close", "defer", "locked", "shadow", "reached"]),
    seconds=st.integers(0, 9000),
    until=st.sampled_from(["", "2026-11-28T05:00:00Z"]),
)


def seconds(**values: float | None) -> Seconds:
    made = Seconds()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def any_transaction(**values: Any) -> Transaction:
    required = ("number", "status", "server", "helo", "sender", "recipients", "refused")
    made = Transaction(*[values.pop(name) for name in required])
    for name, value in values.items():
        setattr(made, name, value)
    return made


@given(
    st.builds(
        any_transaction,
        number=st.integers(1, 9),
        status=st.sampled_from(
            ["FILTERED", "SKIPPED", "RELAYED", "FILTER-ERROR", "INTERRUPTED", "ABANDONED", "REFUSED", "x"]
        ),
        server=st.just("198.51.100.25"),
        helo=ANY,
        sender=st.none() | ANY,
        recipients=st.lists(ANY, max_size=15),
        refused=st.lists(st.tuples(ANY, st.sampled_from([450, 550])), max_size=5),
        refused_more=st.integers(0, 3),
        is_message=st.booleans(),
        reply=REPLY,
        origin=st.sampled_from(["server", "filter", "proxy"]),
        verdict=st.sampled_from(["", "pass", "reject", "tempfail", "discard", "quarantine"]),
        judged=st.lists(JUDGED, max_size=3).map(tuple),
        filter_words=st.text(max_size=400),
        changed=st.none() | st.booleans(),
        message_id=ANY,
        limits=st.lists(HITS, max_size=9),
        port=st.integers(0, 65535),
        client_tls=st.none() | st.builds(TlsLeg, st.just("TLSv1.3"), st.text(max_size=30), st.text(max_size=300)),
        server_tls=st.none()
        | st.builds(TlsLeg, st.just("TLSv1.2"), st.just("x"), st.text(max_size=300), st.sampled_from(["unverified"])),
        seconds=st.builds(
            seconds,
            client=st.none() | st.floats(0, 9),
            server=st.floats(0, 9),
            reply=st.floats(0, 9),
            connect=st.none() | st.floats(0, 9),
            wait=st.none() | st.floats(0, 9),
        ),
    )
)
def test_every_event_follows_the_schema(facts: Transaction) -> None:
    data = encoded(events.transaction(WHO, facts, Addresses()))
    assert len(data) < OCTETS_MAX
    assert b"\n" not in data
    check(json.loads(data), KINDS["message"])
    fields = event_log.journal_fields(events.transaction(WHO, facts, Addresses())).decode()
    assert all(re.match(r"[A-Z_]+=", line) for line in fields.split("\n")[:-1])


def facts(status: str = "FILTERED", reply: bytes = b"250 2.0.0 ok\r\n", **more: object) -> Transaction:
    made = Transaction(1, status, "198.51.100.25", b"c.example", b"ann@c.example", [b"bob@mx.example"], [])
    made.reply, made.origin = reply, "server"
    for name, value in more.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("made", "status"),
    [
        (facts(), "delivered"),
        (facts(reply=b"451 4.7.1 later\r\n"), "deferred"),
        (facts(reply=b"550 no\r\n"), "rejected"),
        (facts(verdict="discard"), "discarded"),
        (facts("INTERRUPTED"), "interrupted"),
        (facts("ABANDONED", b"", is_message=False), "abandoned"),
        (facts("REFUSED", b"", is_message=False, recipients=[], refused=[(b"bob@mx.example", 550)]), "rejected"),
        (facts("REFUSED", b"", is_message=False, recipients=[], refused=[(b"b", 550), (b"c", 451)]), "deferred"),
    ],
)
def test_what_became_of_it(made: Transaction, status: str) -> None:
    assert events.transaction(WHO, made, Addresses())["status"] == status


@pytest.mark.parametrize(
    ("recipients", "refused_more", "told", "more"), [(1, 0, 1, None), (10, 0, 10, None), (11, 0, 10, 1), (9, 2, 9, 2)]
)
def test_recipients_that_are_not_shown_are_counted(
    recipients: int, refused_more: int, told: int, more: int | None
) -> None:
    made = facts(recipients=[b"bob%d@mx.example" % number for number in range(recipients)], refused_more=refused_more)
    event = events.transaction(WHO, made, Addresses())
    assert (len(event["to"]), event.get("to_more")) == (told, more)


def test_tls_of_both_legs() -> None:
    client = TlsLeg("TLSv1.3", "TLS_AES_256_GCM_SHA384", "")
    server = TlsLeg("TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384", "n" * 999, "dane")
    event = events.transaction(WHO, facts(client_tls=client, server_tls=server), Addresses())
    check(event, KINDS["message"])
    assert event["client"]["tls"] == {"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "server_name": ""}
    assert event["server"]["tls"]["verified"] == "dane"
    assert len(encoded(event)) < OCTETS_MAX
    clear = events.transaction(WHO, facts(), Addresses())
    assert "tls" not in clear["client"] | clear["server"]


class Lost:
    count = 0

    def __call__(self) -> None:
        self.count += 1


def event(number: int = 1) -> dict[str, Any]:
    return events.transaction(WHO, facts(number=number), Addresses())


def numbers(data: bytes) -> list[int]:
    return [json.loads(line)["message"] for line in data.splitlines()]


def test_a_file_that_is_rotated(tmp_path: Path) -> None:
    path, lost = tmp_path / "events.json", Lost()
    log = EventLog(str(path), lost)
    log.write(event(1))
    path.rename(tmp_path / "events.json.1")
    log.write(event(2))
    log.look()
    log.write(event(3))
    path.unlink()
    log.look()
    log.write(event(4))
    log.close()
    assert numbers((tmp_path / "events.json.1").read_bytes()) == [1, 2]
    assert numbers(path.read_bytes()) == [4]
    assert lost.count == 0


def test_a_full_disk_and_a_folder_that_is_not_there(tmp_path: Path) -> None:
    for path in ("/dev/full", str(tmp_path / "no" / "events.json")):
        lost = Lost()
        log = EventLog(path, lost)
        for number in range(3):
            log.write(event(number + 1))
        log.close()
        assert lost.count == 3


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_socket(tmp_path: Path, kind: socket.SocketKind) -> None:
    path, lost = str(tmp_path / "s"), Lost()
    with socket.socket(socket.AF_UNIX, kind) as listener:
        log = EventLog(f"unix:{path}", lost)
        log.write(event(1))  # nobody is there yet: it waits
        listener.bind(path)
        if kind == socket.SOCK_STREAM:
            listener.listen()
        log.write(event(2))
        peer = listener.accept()[0] if kind == socket.SOCK_STREAM else listener
        peer.settimeout(10)
        heard = b""
        while heard.count(b"\n") < 2:
            heard += peer.recv(65536)
        log.close()
        peer.close()
    assert numbers(heard) == [1, 2]
    assert lost.count == 0


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_reader_that_does_not_read(tmp_path: Path, kind: socket.SocketKind) -> None:
    """Nothing waits, memory is bounded, and every event that is lost is counted."""
    path, lost, total = str(tmp_path / "s"), Lost(), 6000
    with socket.socket(socket.AF_UNIX, kind) as listener:
        listener.bind(path)
        if kind == socket.SOCK_STREAM:
            listener.listen()
        log = EventLog(f"unix:{path}", lost)
        for number in range(total):
            log.write(event(number + 1))
        target = log._target
        assert isinstance(target, event_log.SocketTarget)
        assert target._octets <= BACKLOG_MAX
        assert lost.count > 0
        peer = listener.accept()[0] if kind == socket.SOCK_STREAM else listener
        peer.setblocking(False)
        heard = b""
        while True:  # the reader is back
            try:
                while data := peer.recv(1 << 20):
                    heard += data
            except BlockingIOError:
                if not target._waiting:
                    break
                log.look()
        log.close()
        peer.close()
    got = numbers(heard)
    assert got == sorted(got)
    assert len(got) + lost.count == total


def test_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A datagram of journald's native protocol, to a socket of the test's own."""
    path = str(tmp_path / "journal")
    monkeypatch.setattr(event_log, "JOURNAL", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        journal.settimeout(10)
        log = EventLog("journal", Lost())
        log.write(event())
        fields = dict(line.split("=", 1) for line in journal.recv(65536).decode().splitlines())
        log.close()
    assert fields["PROXSMTP_ID"] == WHO.trace_id
    assert (fields["PROXSMTP_CLIENT"], fields["PROXSMTP_TO"]) == ("192.0.2.7", "bob@mx.example")
    assert (fields["PROXSMTP_STATUS"], fields["PROXSMTP_CODE"], fields["PRIORITY"]) == ("delivered", "250", "6")
    assert re.fullmatch("[0-9a-f]{32}", fields["MESSAGE_ID"])
    check(json.loads(fields["PROXSMTP_JSON"]), KINDS["message"])


# The command.


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "inbound.conf"
    path.write_text(f"OutAddress: 192.0.2.25:25\nEventLog: {tmp_path}/events.json\n")
    return path


def test_the_command(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = EventLog(f"{tmp_path}/events.json", Lost())
    log.write(event(1))
    log.write(events.transaction(WHO, facts(number=2, reply=b"550 5.1.1 no\r\n"), Addresses()))
    with (tmp_path / "events.json").open("ab") as file:
        file.write(b'{"torn\n[]\n')
    options = ["-f", str(config)]
    assert main(["events", *options]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "ann@c.example to bob@mx.example (250): delivered: 250 2.0.0 ok" in first
    assert second.endswith("rejected: 550 5.1.1 no")
    for filters, wanted in (
        (["--status", "5xx"], [2]),
        (["--status", "delivered"], [1]),
        (["--status", "550"], [2]),
        (["--client", "192.0.2.0/24"], [1, 2]),
        (["--client", "2001:db8::/32"], []),
        (["--id", "01JD8Q3K7C2VB"], []),
        (["--id", WHO.trace_id], [1, 2]),
    ):
        assert main(["events", *options, "--json", *filters]) == 0
        assert numbers(capsys.readouterr().out.encode()) == wanted, filters


def test_follow_reads_on_in_the_next_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.json"
    path.write_text("one\ntwo\nhal")

    def half() -> None:
        with path.open("a") as file:
            file.write("f\n")

    def rotated() -> None:
        path.rename(tmp_path / "old")

    def new() -> None:
        path.write_text("new\n")

    steps = iter([half, rotated, new])
    monkeypatch.setattr("proxsmtp_tp.cli.events.time.sleep", lambda _: next(steps)())
    lines = command._lines(str(path), follow=True)
    assert [next(lines) for _ in range(4)] == ["one\n", "two\n", "half\n", "new\n"]


@pytest.mark.parametrize(
    ("where", "said"), [("off", "EventLog is off"), ("journal", "journalctl"), ("unix:/run/x", "listens there")]
)
def test_there_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str, said: str) -> None:
    path = tmp_path / "inbound.conf"
    path.write_text(f"OutAddress: 192.0.2.25:25\nEventLog: {where}\n")
    assert main(["events", "-f", str(path)]) == 1
    assert said in capsys.readouterr().err


def test_pseudonyms(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    options = ["events", "-f", str(config), "--address", "Bob@mx.example"]
    assert main(options) == 1
    assert "there is no key" in capsys.readouterr().err
    (tmp_path / "pseudonym.key").write_text("2026-11-28 " + "0f" * 32 + "\n")
    assert main(options) == 0
    assert re.fullmatch(r"2026-11-28 [0-9A-Z]{13}@mx\.example\n", capsys.readouterr().out)


@given(HITS)
def test_a_limit(hit: LimitHit) -> None:
    event = events.limit(WHO, hit)
    check(json.loads(encoded(event)), KINDS["limit"])
    fields = event_log.journal_fields(event).decode()
    assert f"\nPROXSMTP_LIMIT={hit.limit}\n" in fields
    assert "\nPROXSMTP_EVENT=limit\n" in fields


def test_a_lock_and_its_end() -> None:
    more: dict[str, Any] = {"value": "30/10m", "until": "2026-11-28T05:00:00Z", "seconds": 900, "repeated": 0}
    begun = events.lock("a", "192.0.2.7", "ClientRejects", id="01JD8Q3K7C2VA", **more)
    by_hand = events.lock("a", "2001:db8::/64", "administrator", text="asked by phone", **more)
    for event in (begun, by_hand):
        check(json.loads(encoded(event)), KINDS["lock"])
        assert "\nPROXSMTP_REASON=" in event_log.journal_fields(event).decode()
    ended = events.lock("a", "192.0.2.7", "ClientRejects", "administrator")
    check(json.loads(encoded(ended)), KINDS["unlock"])
    assert "MESSAGE=client=192.0.2.7, unlock=ClientRejects, id=\n" in event_log.journal_fields(ended).decode()
    identifiers = [line for event in (begun, ended) for line in event_log.journal_fields(event).decode().split("\n")
                   if line.startswith("MESSAGE_ID=")]  # fmt: skip
    assert len(set(identifiers)) == 2
