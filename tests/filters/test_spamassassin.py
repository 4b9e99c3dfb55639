"""SpamAssassin: spamd by SPAMC, and spamass-milter in front of the same spamd."""

from __future__ import annotations

import asyncio
import re
import shlex
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.verdict import Action
from tests.filters.daemons import daemon
from tests.filters.recipes import fragment
from tests.unit.filters.member_harness import TEXT, Judged, describe, judge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RULES = """
required_score 5
rewrite_header Subject [SPAM]
clear_headers
add_header spam Flag _YESNOCAPS_
add_header all Status "_YESNO_, score=_SCORE_ tests=_TESTS_"
body BUY /buy lottery tickets/
score BUY 10
header FROM_US X-Spam-Relays-Untrusted =~ /ip=192\\.0\\.2\\.7 rdns= helo=client\\.example/
score FROM_US 0.5
header TO_B EnvelopeFrom =~ /^a\\@example\\.org$/
score TO_B 0.25
envelope_sender_header X-Envelope-From
"""
SPAM = TEXT.replace(b"Good morning.", b"Please buy lottery tickets.")


@pytest.fixture(scope="module")
def spamassassin(directory: Path) -> Iterator[Path]:
    """Two spamd (report_safe 0 and 1), with a few rules; spamass-milter asks the first."""
    for safe in (0, 1):
        (directory / f"rules{safe}").mkdir()
        (directory / f"rules{safe}" / "local.cf").write_text(
            RULES + (fragment("/etc/spamassassin/local.cf") if safe == 0 else "report_safe 1\n")
        )
        (directory / f"rules{safe}" / "init.pre").write_text("loadplugin Mail::SpamAssassin::Plugin::Check\n")
    options = shlex.split(fragment("/etc/default/spamd").removeprefix("OPTIONS="))
    common = [*shlex.split(options[0]), "-L", "-s", "stderr", f"-H{directory}"]

    def spamd(safe: int) -> list[str | Path]:
        rules = directory / f"rules{safe}"
        return ["spamd", *common, f"--socketpath={directory}/spamd{safe}", f"-C{rules}", f"--siteconfigpath={rules}"]

    milter: list[str | Path] = [
        "spamass-milter",
        "-p",
        directory / "milter",
        "-r",
        "8",
        "--",
        "-U",
        directory / "spamd0",
    ]
    with (
        daemon(spamd(0), directory / "spamd0"),
        daemon(spamd(1), directory / "spamd1"),
        daemon(milter, directory / "milter"),
    ):
        yield directory


def ask(spamassassin: Path, text: bytes, settings: str = "", safe: int = 0) -> Judged:
    """What spamd says of a message."""
    return asyncio.run(judge(f"s spamd {spamassassin}/spamd{safe} {settings}", text, str(spamassassin)))


def test_ham(spamassassin: Path) -> None:
    """It is marked, and nothing else changes. spamd was told the client and the sender, but the message was not."""
    judged = ask(spamassassin, TEXT)
    marks, text = judged.text[: -len(TEXT)], judged.text[-len(TEXT) :]
    assert marks.splitlines()[0].startswith(b"X-Spam-Checker-Version: ")
    assert marks.splitlines()[1:] == [b"X-Spam-Status: No, score=0.8 tests=FROM_US,TO_B"]
    assert text == TEXT
    assert judged.judgement.detail == "No, score=0.8 required=5.0"


def test_spam(spamassassin: Path) -> None:
    judged = ask(spamassassin, SPAM)
    assert b"X-Spam-Flag: YES\r\n" in judged.text
    assert re.search(rb"^X-Spam-Status: Yes, score=10\.8 tests=BUY,FROM_US,", judged.text, re.MULTILINE)
    changed = SPAM.replace(b"Subject: ", b"Subject: [SPAM] ")
    assert judged.text.replace(b"X-Spam-Prev-Subject: hello\r\n", b"").endswith(changed)


def test_old_marks_are_replaced(spamassassin: Path) -> None:
    judged = ask(spamassassin, b"X-Spam-Status: No, faked\r\n" + SPAM)
    assert b"faked" not in judged.text


def test_wrapped_spam(spamassassin: Path) -> None:
    """report_safe 1: the message is an attachment, without what only spamd was told."""
    judged = ask(spamassassin, SPAM, safe=1)
    assert b"Content-Type: message/rfc822" in judged.text
    assert SPAM.rstrip() in judged.text
    assert b"X-Envelope-To" not in judged.text
    assert b"\n" not in judged.text.replace(b"\r\n", b"")


@pytest.mark.parametrize(("settings", "action"), [("reject=8", Action.REJECT), ("reject=12", Action.PASS)])
def test_reject(spamassassin: Path, settings: str, action: Action) -> None:
    assert ask(spamassassin, SPAM, settings).judgement.action is action
    assert ask(spamassassin, TEXT, settings).judgement.action is Action.PASS


def test_only_the_header(spamassassin: Path) -> None:
    judged = ask(spamassassin, SPAM, "edits=headers", safe=1)
    assert judged.text == b"X-Spam-Status: Yes, score=10.8 required=5.0\r\nX-Spam-Flag: YES\r\n" + SPAM


ODD = [b"text only\r\n", b"From x y\r\nA: b\r\n\r\ntext\r\n", b"A: b\r\n\r\n" + b"x" * 300_000 + b"\r\n"]


@pytest.mark.parametrize("text", ODD)
def test_odd_messages(spamassassin: Path, text: bytes) -> None:
    judged = ask(spamassassin, text)
    bare = re.sub(rb"X-Spam-[A-Z].*\r\n(?:[ \t].*\r\n)*", b"", judged.text)
    assert bare.replace(b"Subject: \r\n", b"").lstrip(b"\r\n") == text  # SpamAssassin adds a missing Subject


def test_check(spamassassin: Path) -> None:
    assert "PONG" in asyncio.run(describe(f"s spamd {spamassassin}/spamd0"))[0]


def test_milter(spamassassin: Path) -> None:
    judged = asyncio.run(judge(f"m milter {spamassassin}/milter", TEXT, str(spamassassin), after=TEXT))
    assert judged.judgement.action is Action.PASS
    assert re.search(rb"^X-Spam-Status: No, score=0\.", judged.text, re.MULTILINE)
    assert TEXT.split(b"\r\n\r\n")[1] in judged.text


def test_milter_rejects(spamassassin: Path) -> None:
    judged = asyncio.run(judge(f"m milter {spamassassin}/milter", SPAM, str(spamassassin), after=TEXT))
    assert judged.judgement.action is Action.REJECT
