"""`proxsmtp-tp top` in a terminal, with a daemon and mail."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tools.live_mail import COMMAND, LiveMail
from tools.terminal import WAIT_SECONDS, Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOSTILE = b"EHLO \xc2\x9b2J\x7f\xff\r\nMAIL FROM:<carl@client.example>\r\n"


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveMail]:
    """A client that sends, one whose mail is refused, one that waits for the filter, one that waits for itself."""
    live = LiveMail(tmp_path_factory.mktemp("top"), slow=2.0)
    try:
        live.send("127.0.0.2", ["ann@client.example"], 0.1)
        live.send("127.0.0.3", ["spam@client.example"], 0.2)
        for _ in range(6):
            live.send("127.0.0.4", ["slow@client.example"], 0.1)
        live.hold("127.0.0.5", HOSTILE)
        yield live
    finally:
        live.close()


@pytest.fixture
def start(mail: LiveMail) -> Iterator[Callable[..., Terminal]]:
    """`top` in a terminal."""
    started: list[Terminal] = []

    def run(*arguments: str, term: str = "xterm-256color", locale: str = "C.UTF-8") -> Terminal:
        environment = mail.environment | {"TERM": term, "LC_ALL": locale}
        command = [str(COMMAND), "top", "-f", str(mail.configuration), "--interval", "0.5", *arguments]
        started.append(Terminal(command, environment))
        return started[-1]

    yield run
    for terminal in started:
        terminal.close()


def cell(text: str, name: str, number: int) -> str:
    """A cell of the row of this client, server or session; empty: there is no such row."""
    return next((line.split()[number] for line in text.split("\n") if line.startswith(f"{name} ")), "")


def test_what_flows_is_seen(start: Callable[..., Terminal]) -> None:
    top = start()
    top.until(lambda text: cell(text, "127.0.0.3", 3) not in {"", "-", "0"}, "refusals a second")
    text = top.until(lambda text: "QUEUE" in text and cell(text, "127.0.0.4", 1) == "6", "six sessions")
    assert len(top.lines) == 24
    assert "proxsmtp-tp top: inbound" in top.lines[0]
    top.until(lambda text: "rejected" in text and "filters 4 of 4" in text, "totals and filters")
    top.type(">>")
    top.until(lambda text: "by 5XX/S" in text and text.index("127.0.0.3") < text.index("127.0.0.4"), "sorted")
    top.type("r")
    top.until(lambda text: "by 5XX/S, reversed" in text, "reversed")
    top.type("2")
    top.until(lambda text: "[servers]" in text and cell(text, "127.0.0.1", 1) not in {"", "0"}, "the server")
    top.type("q")
    assert top.wait() == 0
    assert "NO ANSWER" not in text


def test_a_session_is_found_and_ended(mail: LiveMail, start: Callable[..., Terminal]) -> None:
    top = start("--view", "sessions")
    top.type("/127.0.0.5\r")
    text = top.until(lambda text: "1 by FOR" in text and "from carl@client.example" in text, "one session")
    assert "\\x9b2J\\x7f\\xff" in text.split("HELO ")[1]
    assert b"\xc2\x9b" not in top.raw
    identifier = next(line for line in top.lines if "127.0.0.5:" in line).split()[0]
    top.type("k")
    top.until(lambda text: f"end session {identifier} with 421? y/n" in text, "the question")
    top.type("x")
    top.until(lambda text: "nothing was ended" in text, "only y ends it")
    top.type("ky")
    top.until(lambda text: f"session {identifier} ends within a second" in text, "the answer")
    top.until(lambda text: "0 by FOR" in text, "it has ended")
    log = mail.log.read_text()
    assert f"kill-session id={identifier}: uid {os.geteuid()}" in log
    mail.hold("127.0.0.5", HOSTILE)


def test_the_terminal_changes_its_size(start: Callable[..., Terminal]) -> None:
    top = start("--view", "sessions")
    top.until(lambda text: "ID " in text and "slow@client.example >" not in text, "80 columns")
    top.resize(40, 140)
    top.until(lambda text: "ENVELOPE" in text and "slow@client.example > bob@mx.example" in text, "more columns")
    top.until(lambda _: top.lines[-1].startswith("q leave"), "the last line")
    top.resize(8, 30)
    top.until(lambda text: "ID " in text and "? help" in top.lines[-1] and "connections" not in text, "a small one")
    top.resize(1, 1)
    top.resize(24, 80)
    top.until(lambda text: "connections" in text and "[sessions]" in text, "as before")


def test_pause_and_help(start: Callable[..., Terminal]) -> None:
    top = start()
    top.until(lambda text: "filters 4 of 4" in text)
    top.type("p")
    top.until(lambda text: "PAUSED" in text)
    before = top.lines[1:]
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        top.read(0.1)
    assert top.lines[1:] == before
    top.type("?")
    top.until(lambda text: "with 421, after a question" in text)
    top.type("xp")
    top.until(lambda text: "every 0.5 s" in text and "connections" in text and top.lines[1:] != before)
    top.type("+")
    top.until(lambda text: "every 1 s" in text)


def test_a_daemon_that_is_restarted_meanwhile(mail: LiveMail, start: Callable[..., Terminal]) -> None:
    top = start()
    top.until(lambda text: "rejected" in text)
    mail.stop()
    top.until(lambda text: "NO ANSWER" in text and "last reading. no " in text, "it is gone")
    mail.start()
    top.until(lambda text: "the daemon was restarted" in text and "every 0.5 s" in text, "it is back")
    top.until(lambda text: "rejected" in text, "rates again")
    mail.hold("127.0.0.5", HOSTILE)


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_characters_that_the_terminal_has_not(locale: str, mail: LiveMail, start: Callable[..., Terminal]) -> None:
    mail.hold("127.0.0.6", "EHLO c\r\nMAIL FROM:<grüße@client.example> SMTPUTF8\r\n".encode())
    top = start("--view", "sessions", "--filter", "127.0.0.6", locale=locale)
    top.until(lambda text: "HELO c, from gr" in text and "e@client.example" in text)


def test_ends_that_leave_the_terminal_as_it_was(start: Callable[..., Terminal]) -> None:
    for how in ("q", "\x03"):
        top = start()
        top.until(lambda text: "CLIENT" in text)
        top.type(how)
        assert top.wait() == 0
        assert b"\x1b[?1049l" in top.raw[-200:], "the screen before it is shown again"
    top = start()
    top.until(lambda text: "CLIENT" in text)
    top.process.terminate()
    assert top.wait() == 143
    assert b"\x1b[?1049l" in top.raw[-200:]
    top = start()
    top.until(lambda text: "CLIENT" in text)
    top.hang_up()
    assert top.process.wait(WAIT_SECONDS) in {0, 129, -1}


def test_a_dumb_terminal_gets_text(start: Callable[..., Terminal]) -> None:
    top = start(term="dumb")
    text = top.until(lambda text: "127.0.0.4" in text)
    assert "TERM is dumb: no live view here, this is --once" in text
    assert top.wait() == 0
    assert b"\x1b" not in top.raw


def test_for_scripts(mail: LiveMail) -> None:
    command = [str(COMMAND), "top", "-f", str(mail.configuration), "--interval", "0.5"]
    done = subprocess.run(
        command, env=mail.environment, capture_output=True, text=True, timeout=WAIT_SECONDS, check=True
    )
    assert cell(done.stdout, "127.0.0.4", 1)
    assert done.stderr == ""
    done = subprocess.run(
        [*command, "--json"], env=mail.environment, capture_output=True, text=True, timeout=WAIT_SECONDS, check=True
    )
    seen = json.loads(done.stdout)
    assert {each["client"] for each in seen["clients"]} >= {"127.0.0.2", "127.0.0.3", "127.0.0.4"}
