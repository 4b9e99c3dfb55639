"""amavisd-milter in front of amavisd: it sends PROGRESS, header fields, and refuses by amavisd's rules."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.verdict import Action
from tests.filters.daemons import daemon
from tests.filters.recipes import fragment
from tests.unit.filters.member_harness import TEXT, judge

if TYPE_CHECKING:
    from collections.abc import Iterator

AMAVISD = r"""
use strict;
$MYHOME = '{0}'; $TEMPBASE = "$MYHOME/work"; $QUARANTINEDIR = undef;
$pid_file = "$MYHOME/pid"; $lock_file = "$MYHOME/lock";
$daemon_user = 'amavis'; $daemon_group = 'amavis'; $max_servers = 1; $child_timeout = 60;
$mydomain = 'example.org'; $myhostname = 'gw.example'; $enable_db = 0; $nanny_details_level = 0;
$inet_socket_port = undef;
@bypass_virus_checks_maps = (1); @bypass_spam_checks_maps = (1); @local_domains_maps = (1);
$banned_files_quarantine_method = undef; $warnbannedsender = 0;
$banned_filename_re = new_RE(qr'.\.exe$'i); $banned_namepath_re = undef;
$log_level = 0; $do_syslog = 0; $enable_dkim_verification = 0; $enable_dkim_signing = 0; $file = 'file';
@decoders = (['mail', \&do_mime_decode]);
"""
BANNED = (
    b"From: a@example.org\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream; name=a.exe\r\n"
    b"Content-Disposition: attachment; filename=a.exe\r\n\r\nMZ\r\n"
)


@pytest.fixture(scope="module")
def amavis(directory: Path) -> Iterator[Path]:
    """One process of amavisd, without spam and virus checks."""
    home = directory / "amavis"
    for path in (home, home / "work", home / "milter-work"):
        path.mkdir(mode=0o750)
        shutil.chown(path, "amavis", "amavis")
    configuration = directory / "etc" / "amavisd.conf"  # amavisd may not be able to write there
    configuration.parent.mkdir(mode=0o755)
    configuration.write_text(AMAVISD.replace("{0}", str(home)) + fragment("/etc/amavis/conf.d/50-user") + "1;\n")
    as_amavis = ["setpriv", "--reuid=amavis", "--regid=amavis", "--clear-groups"]
    milter: list[str | Path] = [
        "amavisd-milter",
        "-f",
        "-s",
        home / "milter",
        "-S",
        home / "amavisd.sock",
        "-w",
        home / "milter-work",
    ]
    with (
        daemon(["amavisd", "-c", configuration, "foreground"], home / "amavisd.sock"),
        daemon([*as_amavis, *milter], home / "milter"),
    ):
        yield home / "milter"


def test_the_mode_of_the_socket_is_what_the_script_of_debian_reads() -> None:
    name, _, mode = fragment("/etc/default/amavisd-milter").strip().partition("=")
    assert (name, mode) == ("MILTERSOCKETMODE", '"0660"')
    assert 'chmod "$MILTERSOCKETMODE" "$MILTERSOCKET"' in Path("/etc/init.d/amavisd-milter").read_text()


def test_passes(amavis: Path) -> None:
    judged = asyncio.run(judge(f"m milter {amavis}", TEXT, "/tmp", after=TEXT))
    assert judged.judgement.action is Action.PASS
    assert judged.text.startswith(b"X-Amavis-Alert: BAD HEADER SECTION, Missing required header field")
    assert judged.text.endswith(TEXT)


def test_refuses(amavis: Path) -> None:
    judgement = asyncio.run(judge(f"m milter {amavis}", BANNED, "/tmp", after=TEXT)).judgement
    assert judgement.action is Action.REJECT
    assert "BANNED" in judgement.said
