"""LogFormat: pflogsumm itself reads the postfix form, and the json form is JSON with the values of events."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.config.settings import LogAddresses, LogFormat, Settings
from proxsmtp_tp.service import logging as logs
from proxsmtp_tp.telemetry import addresses, postfix_lines
from proxsmtp_tp.telemetry.addresses import Addresses
from proxsmtp_tp.telemetry.events import Who
from proxsmtp_tp.telemetry.facts import LimitRefusal, Refusal, Seconds, SessionEnd, Transaction
from proxsmtp_tp.telemetry.forms import FORMS, TEXT_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxsmtp_tp.telemetry.forms import Line

FULL = Addresses()
OK, LATER, NO = b"250 2.0.0 Ok: queued\r\n", b"451 4.7.1 greylisted\r\n", b"550 5.7.1 not here\r\n"


def who(number: int) -> Who:
    return Who("000001", f"01JD8Q3K7C{number:03d}", "192.0.2.7", 40112, "inbound", 3)


def message(number: int, reply: bytes, origin: str = "server", verdict: str = "pass", **more: object) -> Transaction:
    facts = Transaction(
        number, "FILTERED", "198.51.100.25", b"c.example", b"ann@c.example", [b"bob@mx.example", b"cat@mx.example"], []
    )
    facts.reply, facts.origin, facts.verdict, facts.size = reply, origin, verdict, 1000
    facts.message_id, facts.seconds = b"<1@c.example>", Seconds()
    facts.seconds.client, facts.seconds.filter, facts.seconds.server, facts.seconds.reply = 0.1, 0.2, 0.3, 0.7
    for name, value in more.items():
        setattr(facts, name, value)
    return facts


def written(lines: list[Line], name: str = "proxsmtp-tp") -> str:
    """As a log daemon would write them."""
    return "".join(
        f"Nov 28 12:00:0{at % 10} gate {name}/{line.daemon}[17]: {line.text}\n" for at, line in enumerate(lines)
    )


def summary(text: str, tmp_path: Path, name: str = "proxsmtp-tp") -> dict[str, int]:
    """The grand totals of pflogsumm."""
    (tmp_path / "mail.log").write_text(text)
    command = ["pflogsumm", f"--syslog-name={name}", str(tmp_path / "mail.log")]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {
        words: int(number) for number, words in re.findall(r"^ +(\d+)k? +([a-z]+(?: [a-z]+)*)", shown, re.MULTILINE)
    }


def test_pflogsumm_reads_it(tmp_path: Path) -> None:
    form = FORMS["postfix"](FULL)
    lines: list[Line] = []
    scenarios = [message(1, OK), message(2, OK), message(1, LATER), message(1, NO)]
    scenarios += [message(1, NO, "filter", "reject"), message(1, OK, "filter", "discard")]
    for number, facts in enumerate(scenarios):
        lines += form.transaction(who(number), facts)
    lines.append(form.refusal(who(7), Refusal("RCPT", "198.51.100.25", b"ann@c.example", b"dan@mx.example", NO)))
    lines.append(form.session_end(who(7), SessionEnd("198.51.100.25", b"c", "quit", {"mail": (1, 0)}, 1, 1, 1.0)))
    lines.append(form.text(who(7), logging.INFO, "accepted connection from: 192.0.2.7:40112"))
    totals = summary(written(lines), tmp_path)
    expected = {"received": 6, "delivered": 4, "deferred": 1, "bounced": 2, "rejected": 2, "discarded": 1}
    assert {name: totals[name] for name in expected} == expected
    assert totals["bytes received"] == 4000
    assert totals["senders"] == 1
    assert totals["recipients"] == 2


def test_pflogsumm_counts_what_limits_refuse(tmp_path: Path) -> None:
    """Each refusal, and with which limit."""
    form = FORMS["postfix"](FULL)
    full = b"421 4.7.1 Too many connections from your address (ClientConnections), try again later\r\n"
    many = b"450 4.7.1 Too many messages from your address (ClientMessages), try again in 8 s\r\n"
    refusals = [LimitRefusal("CONNECT", None, None, full)] * 2
    refusals += [LimitRefusal("MAIL", b"ann@c.example", None, many), LimitRefusal("MAIL", b"", None, many)]
    refusals.append(LimitRefusal("RCPT", b"ann@c.example", b"bob@mx.example", many))
    lines = [line for facts in refusals for line in form.limit_refusal(who(1), facts)]
    assert summary(written(lines), tmp_path)["rejected"] == 5
    command = ["pflogsumm", "--syslog-name=proxsmtp-tp", "--detail=9", str(tmp_path / "mail.log")]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    detail = shown[shown.index("message reject detail") :]
    assert [re.search(rf"^  {stage}$", detail, re.MULTILINE) is not None for stage in ("CONNECT", "MAIL", "RCPT")] == [
        True, True, True,
    ]  # fmt: skip
    assert "192.0.2.7" in detail
    for name in ("proxsmtpd", "json"):
        assert FORMS[name](FULL).limit_refusal(who(1), refusals[0]) == []


def test_pflogsumm_names_the_reasons(tmp_path: Path) -> None:
    form = FORMS["postfix"](FULL)
    lines = [*form.transaction(who(1), message(1, NO))]
    lines.append(form.refusal(who(7), Refusal("RCPT", "198.51.100.25", b"ann@c.example", b"dan@mx.example", NO)))
    lines.append(form.text(who(7), logging.WARNING, "client=192.0.2.7: the server closed the connection"))
    (tmp_path / "mail.log").write_text(written(lines))
    command = ["pflogsumm", "--syslog-name=proxsmtp-tp", "--detail=9", str(tmp_path / "mail.log")]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for words in ("not here", "192.0.2.7", "198.51.100.25", "the server closed"):
        assert words in shown


def test_each_message_of_a_session_has_its_queue_id() -> None:
    """The first one the trace id, the others a number behind it."""
    for number, queue_id in ((1, "01JD8Q3K7C001"), (2, "01JD8Q3K7C001x2")):
        lines = postfix_lines.transaction(who(1), message(number, OK), FULL)
        assert {line.partition(":")[0] for _, line in lines} == {queue_id}


@pytest.mark.parametrize(("port", "shown"), [(587, 587), (0, 25)])
def test_the_port_of_the_server(port: int, shown: int) -> None:
    lines = [line for _, line in postfix_lines.transaction(who(1), message(1, OK, port=port), FULL)]
    assert len([line for line in lines if f"relay=198.51.100.25[198.51.100.25]:{shown}, " in line]) == 2


def test_a_transaction_that_has_no_message() -> None:
    made = message(1, NO, is_message=False)
    start, end = "NOQUEUE: reject: MAIL from unknown[192.0.2.7]: 550 5.7.1 not here; ", " proto=ESMTP helo=<c.example>"
    for sender, recipients, words in (
        (b"ann@c.example", [b"bob@mx.example", b"cat@mx.example"], "from=<ann@c.example> to=<bob@mx.example>"),
        (b"ann@c.example", [], "from=<ann@c.example>"),
        (None, [], "from=<>"),
    ):
        made.sender, made.recipients = sender, recipients
        assert postfix_lines.transaction(who(1), made, FULL) == [("smtpd", start + words + end)]


@pytest.mark.parametrize("name", FORMS)
def test_a_line_that_is_too_long_is_cut(name: str) -> None:
    for length in (TEXT_MAX, TEXT_MAX + 1):
        line = FORMS[name](FULL).text(who(1), logging.INFO, "x" * length)
        words = re.search(r"x+(\.\.\.)?", line.text or (line.fields or {})["text"])
        assert words is not None
        assert words[0] == "x" * TEXT_MAX + ("..." if length > TEXT_MAX else "")


WORDS = st.lists(
    st.sampled_from(
        [b"a", b"; from=<x@y>", b"> to=<x@y>, relay=x, delay=1, status=sent", b"<", b"\r\n", b'"', b"@c.example"]
    ),
    max_size=5,
).map(b"".join)


@given(WORDS, WORDS, WORDS, WORDS, st.sampled_from([OK, LATER, NO]))
def test_no_field_is_forged(sender: bytes, recipient: bytes, helo: bytes, said: bytes, reply: bytes) -> None:
    reply = reply[:-2] + said.replace(b"\r\n", b"") + b"\r\n"
    facts = message(1, reply, sender=sender, recipients=[recipient], helo=helo)
    lines = [line for _, line in postfix_lines.transaction(who(1), facts, FULL)]
    lines.append(postfix_lines.refusal(who(1), Refusal("RCPT", "198.51.100.25", sender, recipient, reply), FULL))
    for line in lines:
        assert len(re.findall(r"\bfrom=<", line)) <= 1
        assert len(re.findall(r"\bto=<", line)) <= 1
        assert "\n" not in line
    for line in lines[:-1]:
        found = re.findall(r"(?:^|>, )relay=([^,]+), ", line)
        assert found in ([], ["198.51.100.25[198.51.100.25]:25"])


@pytest.fixture
def own_log() -> Iterator[io.StringIO]:
    """The log of a daemon, in place of pytest's."""
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    root.handlers = []
    stream = io.StringIO()
    logs.set_up(logs.StreamHandler("proxsmtp-tp", stream), 4)
    yield stream
    logs.use(Settings(), None)
    root.handlers, root.level = kept, level
    logging.raiseExceptions = True
    logging.captureWarnings(capture=False)
    addresses.use(Addresses())


def test_the_json_form(own_log: io.StringIO) -> None:
    logs.use(Settings(log_format=LogFormat.JSON), None)
    form = FORMS["json"](FULL)
    log = logging.getLogger("proxsmtp_tp.x")
    log.warning("the master: %s", "a\nb")
    for line in (*form.transaction(who(1), message(1, NO)), form.text(who(1), 20, "client=192.0.2.7: hello")):
        log.info("%s", line.text, extra={"fields": line.fields, "daemon": line.daemon})
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        log.exception("%s", "", extra={"fields": {"id": "01JD8Q3K7C2VA"}})
    master, event, text, bug = (json.loads(line) for line in own_log.getvalue().splitlines())
    assert (master["level"], master["text"], master["event"]) == ("warning", "the master: a\\nb", "text")
    assert (event["event"], event["status"], event["level"]) == ("message", "rejected", "information")
    assert event["reply"] == {"code": 550, "enhanced": "5.7.1", "text": "not here", "origin": "server"}
    assert (text["text"], text["id"], text["client"]["address"]) == (
        "client=192.0.2.7: hello", "01JD8Q3K7C001", "192.0.2.7",
    )  # fmt: skip
    assert "ZeroDivisionError" in bug["text"]
    assert bug["id"] == "01JD8Q3K7C2VA"


def test_the_postfix_form_has_a_tag(own_log: io.StringIO) -> None:
    logs.use(Settings(log_format=LogFormat.POSTFIX), None)
    log = logging.getLogger("proxsmtp_tp.x")
    log.info("one")
    log.info("two", extra={"daemon": "smtp"})
    assert re.fullmatch(r"proxsmtp-tp/proxy\[\d+\]: one\nproxsmtp-tp/smtp\[\d+\]: two\n", own_log.getvalue())


def test_addresses_in_lines_of_other_modules(own_log: io.StringIO) -> None:
    logs.use(Settings(log_addresses=LogAddresses.DOMAIN), None)
    logging.getLogger("proxsmtp_tp.filters.x").info("the scanner says: %s", "550 <canary@mx.example> unknown")
    assert own_log.getvalue() == "proxsmtp-tp: the scanner says: 550 <@mx.example> unknown\n"
