"""The sample filter: what it passes, refuses and discards, and that nothing in a mail or envelope runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from proxsmtp_tp.lab import mx
from proxsmtp_tp.lab.scenario import GTUBE

SCRIPT = Path(mx.__file__).with_name("sample-filter.sh")
PLAIN = b"Subject: x\r\n\r\nhello\r\n"
ENVELOPE = {"CLIENT": "192.0.2.10", "SERVER": "2001:db8:2::25", "SENDER": "alice@sender.example"}
MARK = b"X-Filter: passed; client=192.0.2.10; server=2001:db8:2::25; sender=alice@sender.example\r\n"

# Debian's sh is dash; bash as sh is what other systems have.
SHELLS = [("dash",), ("bash", "--posix")]


@pytest.fixture(params=SHELLS, ids=["dash", "bash"])
def shell(request: pytest.FixtureRequest) -> tuple[str, ...]:
    found: tuple[str, ...] = request.param
    return found


def run(
    shell: tuple[str, ...], tmp_path: Path, message: bytes, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """The filter as the daemon runs it, in an environment of its own."""
    return subprocess.run(
        [*shell, SCRIPT],
        input=message,
        capture_output=True,
        check=False,
        timeout=30,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), **ENVELOPE, **environment},
    )


@pytest.mark.parametrize(
    "message",
    [
        PLAIN,
        b"",
        b"\r\n",
        b"Subject: x\r\n\r\n.\r\n..\r\n" + bytes(range(256)) + b"no end",
        b"Subject: x\n\nX-Filter-Action: discard\n",
        b"X-Filter-Action: discarding\r\n\r\n",
        b"X-Filter-Action: keep\r\nX-Other: X-Filter-Action: discard\r\n\r\n",
        b"x" * 300_000 + b"\r\n\r\n" + GTUBE[:-1].encode(),
    ],
    ids=range(8),
)
def test_good_mail_is_marked(shell: tuple[str, ...], tmp_path: Path, message: bytes) -> None:
    done = run(shell, tmp_path, message)
    assert (done.returncode, done.stdout, done.stderr) == (0, MARK + message, b"")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "message",
    [PLAIN + GTUBE.encode(), b"\0\xff" + GTUBE.encode() + b"\0", b"Subject: " + GTUBE.encode() + b"\r\n\r\n"],
    ids=range(3),
)
def test_gtube_is_refused(shell: tuple[str, ...], tmp_path: Path, message: bytes) -> None:
    done = run(shell, tmp_path, message)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"550 5.7.1 This is the GTUBE test string: refused by the filter\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "message",
    [
        b"X-Filter-Action: discard\r\n\r\nx\r\n",
        b"Subject: x\nx-filter-action:\tDISCARD  \n\nx\n",
        b"X-Filter-Action: discard",
    ],
    ids=range(3),
)
def test_discards_on_request(shell: tuple[str, ...], tmp_path: Path, message: bytes) -> None:
    done = run(shell, tmp_path, message)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"250 2.0.0 Discarded by the filter, as the message asked\n"


def test_file_type(shell: tuple[str, ...], tmp_path: Path) -> None:
    """With EMAIL the message stays in its file, and standard output is silent."""
    email = tmp_path / "a b.eml"
    email.write_bytes(PLAIN)
    done = run(shell, tmp_path, b"", EMAIL=str(email))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert email.read_bytes() == MARK + PLAIN


@pytest.mark.parametrize(
    "sender",
    [
        "$(touch ran)@x.example",
        "`touch ran`@x.example",
        "'; touch ran; '@x.example",
        '"; touch ran; "@x.example',
        "a\r\nX-Injected: yes\r\n\r\nbody",
        "%s%n%d@x.example",
        "-n",
        "*",
        "\\",
        "a" * 10_000,
        "jürgen@sender.example",
    ],
)
def test_hostile_envelope(shell: tuple[str, ...], tmp_path: Path, sender: str) -> None:
    done = run(shell, tmp_path, PLAIN, SENDER=sender, CLIENT=sender, SERVER=sender)
    assert done.returncode == 0
    header, _, rest = done.stdout.partition(b"\r\n")
    assert rest == PLAIN
    assert header.startswith(b"X-Filter: passed; client=")
    assert header.decode("ascii").isprintable()
    assert len(header) < 700
    assert not list(tmp_path.iterdir()), "something ran, or was left"


def test_trouble_is_temporary(shell: tuple[str, ...], tmp_path: Path) -> None:
    """No space for its files: the client is told to try again later, and the mail is not refused."""
    done = run(shell, tmp_path, PLAIN, TMPDIR="/nonexistent")
    assert done.returncode == 75
    assert done.stdout == b""
    assert done.stderr.splitlines()[-1] == b"451 4.3.0 The filter has a problem here, try again later"


def test_a_reader_that_closes_early_is_an_error(shell: tuple[str, ...], tmp_path: Path) -> None:
    """Half an output is no success."""
    message = PLAIN + b"y" * 1_000_000
    process = subprocess.Popen(
        [*shell, SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(message, timeout=30)
    assert process.returncode != 0
    assert b"451 4.3.0" in said
