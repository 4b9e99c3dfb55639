"""MIMEDefang: a filter of ours, in Perl, that does what the subject says."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.verdict import Action
from tests.filters.daemons import daemon
from tests.filters.recipes import fragment
from tests.unit.filters.member_harness import TEXT, Judged, judge

if TYPE_CHECKING:
    from collections.abc import Iterator

FILTER = r"""
sub filter_begin {
    if ($Subject eq 'reject') { return action_bounce('We do not want it'); }
    if ($Subject eq 'defer') { return action_tempfail('Not now'); }
    if ($Subject eq 'discard') { return action_discard(); }
}
sub filter {
    my ($entity, $fname, $ext, $type) = @_;
    if ($ext eq '.exe') { return action_drop_with_warning('A program was removed.'); }
    return action_accept();
}
sub filter_end {
    if ($Subject eq 'edit') {
        action_add_header('X-Client', "$RelayAddr $Helo $Sender $Recipients[0] $QueueID");
        action_change_header('Subject', 'edited');
        action_insert_header('X-Top', 'yes', 0);
        action_delete_header('X-Old');
        add_recipient('<new@example.org>');
        delete_recipient('<b@example.org>');
        change_sender('<other@example.org>');
    }
}
1;
"""
UNIT = Path("/lib/systemd/system/mimedefang.service")
PARTS = (
    b"Subject: parts\r\nFrom: <a@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n"
    b"--x\r\nContent-Type: text/plain\r\n\r\nhello\r\n--x\r\nContent-Type: application/octet-stream\r\n"
    b"Content-Disposition: attachment; filename=a.exe\r\n\r\nMZ\r\n--x--\r\n"
)


@pytest.fixture(scope="module")
def mimedefang(directory: Path) -> Iterator[Path]:
    """The multiplexor with one worker, and the milter."""
    spool = directory / "spool"
    spool.mkdir(mode=0o750)
    shutil.chown(spool, "defang", "defang")
    (directory / "filter").write_text(FILTER)
    (directory / "filter").chmod(0o644)
    multiplexor, milter = spool / "multiplexor", spool / "milter"
    common: list[str | Path] = ["-U", "defang", "-z", spool, "-D", "-G"]
    with (
        daemon(
            [
                "mimedefang-multiplexor",
                *common,
                "-s",
                multiplexor,
                "-F",
                directory / "filter",
                "-m",
                "1",
                "-x",
                "1",
                "-q",
                "9",
            ],
            multiplexor,
        ),
        daemon(["mimedefang", *common, "-m", multiplexor, "-p", milter, "-X", "-q", "-R", "0"], milter),
    ):
        yield milter


def ask(mimedefang: Path, text: bytes) -> Judged:
    """What the filter says of a message."""
    return asyncio.run(judge(f"m milter {mimedefang}", text, "/tmp", after=TEXT))


def about(subject: bytes) -> bytes:
    """A message with that subject."""
    return TEXT.replace(b"hello", subject)


def test_the_group_may_open_the_socket(mimedefang: Path) -> None:
    """As the recipe of docs/filters.md has it: -G is what the unit makes of this line."""
    assert fragment("/etc/default/mimedefang") == "MD_ALLOW_GROUP_ACCESS=yes\n"
    assert '"$MD_ALLOW_GROUP_ACCESS" = "yes" ] && echo "-G"' in UNIT.read_text()
    assert mimedefang.group() == "defang"
    assert mimedefang.stat().st_mode & 0o070 == 0o070


def test_passes(mimedefang: Path) -> None:
    assert ask(mimedefang, TEXT).text == TEXT


@pytest.mark.parametrize(
    ("subject", "action", "words"),
    [
        (b"reject", Action.REJECT, "554 5.7.1 We do not want it"),
        (b"defer", Action.TEMPFAIL, "451 4.3.0 Not now"),
        (b"discard", Action.DISCARD, ""),
    ],
)
def test_verdicts(mimedefang: Path, subject: bytes, action: Action, words: str) -> None:
    judgement = ask(mimedefang, about(subject)).judgement
    assert (judgement.action, judgement.said) == (action, words)


def test_edits(mimedefang: Path) -> None:
    judged = ask(mimedefang, b"X-Old: 1\r\n" + about(b"edit"))
    assert judged.text == b"X-Top: yes\r\n" + about(b"edited").replace(
        b"\r\n\r\n", b"\r\nX-Client: 192.0.2.7 client.example <a@example.org> <b@example.org> t1\r\n\r\n"
    )
    assert (judged.envelope.sender, judged.envelope.recipients) == (b"other@example.org", [b"new@example.org"])


def test_a_new_body(mimedefang: Path) -> None:
    judged = ask(mimedefang, PARTS)
    assert b"A program was removed." in judged.text
    assert b"MZ" not in judged.text
    assert b"hello" in judged.text
    assert b"\n" not in judged.text.replace(b"\r\n", b"")
