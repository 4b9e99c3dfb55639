"""The scripts of docs/filters.md, run as they stand there: good mail, bad mail, hostile envelopes, absent daemons.

spamd and clamd are small servers of the test that speak as much of their protocols as their clients need
(spamd/PROTOCOL of SpamAssassin; clamd(8)); the clients, formail and altermime are Debian's.
"""

from __future__ import annotations

import array
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = (Path(__file__).parents[3] / "docs/filters.md").read_text("utf-8")
SCRIPTS = dict(re.findall(r"^```(?:sh|python) (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
KINDS = {
    name: match[1]
    for name, text in SCRIPTS.items()
    if (match := re.search(r"^# FilterType: (\w+)$", text, re.MULTILINE))
}

PLAIN = b"From: ann@client.example\r\nSubject: plain\r\n\r\nHello Bob,\r\nhow are you?\r\n"
SPAM = b"Subject: SPAM\r\n\r\nBuy now\r\n"
VIRUS = b"Subject: VIRUS\r\n\r\nX5O!P\r\n"
HOSTILE = (
    '"; touch pwned; "@client.example',
    '"$(touch pwned)`touch pwned`"@client.example',
    "-f/etc/passwd@client.example",
    '"a b * ? [x] > pwned"@client.example',
    '"\\"; touch pwned #"@client.example',
    "%s%n\\n\\r@client.example",
    '"\r\nX-Injected: yes\r\n\r\n.\r\n"@client.example',
)


class Bench:
    """Runs one script in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.wrappers = directory / "bin"
        self.wrappers.mkdir()
        (directory / "tmp").mkdir()

    def wrap(self, program: str, *options: str) -> None:
        """Give this program these options before its own, as its configuration file would."""
        path = self.program(program)
        self.fake(program, f'exec {path} {" ".join(options)} "$@"')

    def fake(self, program: str, script: str) -> None:
        """Something else has this name."""
        (self.wrappers / program).write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        (self.wrappers / program).chmod(0o755)

    @staticmethod
    def program(name: str) -> str:
        """Where a program of Debian is."""
        path = shutil.which(name)
        assert path is not None, f"{name} is missing: see debian-packages.txt"
        return path

    def run(self, name: str, message: bytes, **environment: str) -> tuple[int, bytes, str]:
        """Exit status, the message that goes on, the last line of standard error."""
        script = self.directory / name
        script.write_text(SCRIPTS[name], "utf-8")
        script.chmod(0o755)
        variables = {
            "PATH": f"{self.wrappers}:/usr/sbin:/usr/bin:/sbin:/bin",
            "TMPDIR": str(self.directory / "tmp"),
            "CLIENT": "192.0.2.7",
            "SERVER": "198.51.100.25",
            "SENDER": "ann@client.example",
            "RECIPIENTS": "bob@mx.example",
            "HELO": "client.example",
        }
        email = self.directory / "email"
        if KINDS[name] == "file":
            email.write_bytes(message)
            variables["EMAIL"] = str(email)
        done = subprocess.run(
            ["/bin/sh", "-c", str(script)],
            cwd=self.directory,
            env=variables | environment,
            input=b"" if KINDS[name] == "file" else message,
            capture_output=True,
            timeout=60,
            check=False,
        )
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return done.returncode, email.read_bytes() if KINDS[name] == "file" else done.stdout, lines[-1] if lines else ""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A clean directory."""
    return Bench(tmp_path)


@contextmanager
def serving(listener: socket.socket, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """One connection after the other, for the length of a with block."""

    def run() -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            with connection:
                serve(connection)

    listener.listen()
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def spamd(connection: socket.socket) -> None:
    """PROCESS: judge by the subject, and give the message back with a header more."""
    with connection.makefile("rwb") as stream:
        while (line := stream.readline()) not in {b"\r\n", b""}:
            if line.lower().startswith(b"content-length:"):
                size = int(line.split(b":")[1])
        message = stream.read(size)
        spam = b"True ; 15.0 / 5.0" if b"SPAM" in message else b"False ; 0.1 / 5.0"
        answer = b"X-Spam-Checked: yes\r\n" + message
        stream.write(b"SPAMD/1.5 0 EX_OK\r\nContent-length: %d\r\nSpam: %s\r\n\r\n" % (len(answer), spam) + answer)


def clamd(connection: socket.socket) -> None:
    """FILDES: the file comes as a descriptor, behind the command or with it."""
    ancillary: list[tuple[int, int, bytes]] = []
    data = b"unread"
    while data and not ancillary:
        data, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
    descriptors = array.array("i", ancillary[0][2])
    with os.fdopen(descriptors[0], "rb") as file:
        found = b"Eicar-Test-Signature FOUND" if b"X5O!P" in file.read() else b"OK"
    connection.sendall(b"fd[10]: " + found + b"\0")


@pytest.fixture
def with_spamd(bench: Bench) -> Iterator[Bench]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    bench.wrap("spamc", "-d", "127.0.0.1", "-p", str(listener.getsockname()[1]))
    with serving(listener, spamd):
        yield bench


@pytest.fixture
def with_clamd(bench: Bench) -> Iterator[Bench]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(bench.directory / "clamd"))
    (bench.directory / "clamd.conf").write_text(f"LocalSocket {bench.directory}/clamd\n", "utf-8")
    bench.wrap("clamdscan", f"--config-file={bench.directory}/clamd.conf")
    with serving(listener, clamd):
        yield bench


def test_every_script_is_tested_here() -> None:
    assert set(SCRIPTS) == set(KINDS)
    source = Path(__file__).read_text("utf-8")
    assert [name for name in SCRIPTS if f'"{name}"' not in source] == []


def test_copy(bench: Bench) -> None:
    assert bench.run("copy.sh", PLAIN) == (0, PLAIN, "")
    (copy,) = (bench.directory / "tmp").iterdir()
    assert copy.read_bytes() == PLAIN


@pytest.mark.parametrize("name", ["/dev/full", "/nonexistent/copy", ""])
def test_no_space_for_a_copy(bench: Bench, name: str) -> None:
    """As mktemp names it: on a full disk, in a directory that went away, or not at all."""
    bench.fake("mktemp", f"test -n '{name}' && echo {name}")
    status, _, said = bench.run("copy.sh", PLAIN)
    assert (status, said) == (1, "451 4.3.1 No space for a copy, try again later")


def test_spamc(with_spamd: Bench) -> None:
    assert with_spamd.run("spamc.sh", PLAIN) == (0, b"X-Spam-Checked: yes\r\n" + PLAIN, "")
    status, _, said = with_spamd.run("spamc.sh", SPAM)
    assert (status, said) == (1, "550 5.7.1 This message looks like spam")


def test_spamc_without_spamd(bench: Bench) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and never listening: nobody else gets the port
        bench.wrap("spamc", "-d", "127.0.0.1", "-p", str(taken.getsockname()[1]), "--connect-retries=1")
        status, _, said = bench.run("spamc.sh", PLAIN)
    assert (status, said) == (1, "451 4.7.1 The spam filter is not available, try again later")


def test_clamdscan(with_clamd: Bench) -> None:
    assert with_clamd.run("clamdscan.sh", PLAIN) == (0, PLAIN, "")
    status, _, said = with_clamd.run("clamdscan.sh", VIRUS)
    assert (status, said) == (1, "550 5.7.1 Virus found: Eicar-Test-Signature FOUND")


def test_clamdscan_without_clamd(bench: Bench) -> None:
    (bench.directory / "clamd.conf").write_text(f"LocalSocket {bench.directory}/nobody\n", "utf-8")
    bench.wrap("clamdscan", f"--config-file={bench.directory}/clamd.conf")
    status, _, said = bench.run("clamdscan.sh", PLAIN)
    assert (status, said) == (1, "451 4.7.1 The virus scanner is not available, try again later")


def test_formail(bench: Bench) -> None:
    bench.program("formail")
    status, message, _ = bench.run("formail.sh", PLAIN)
    assert status == 0
    header, _, body = PLAIN.replace(b"\r\n", b"\n").partition(b"\n\n")
    # formail ends its output with an empty line, as a mailbox wants it.
    assert message == header + b"\nX-Envelope-From: <ann@client.example>\n\n" + body + b"\n"


@pytest.mark.parametrize("broken", ["sed", "formail"])
def test_formail_never_passes_half_a_message(bench: Bench, broken: str) -> None:
    bench.fake(broken, "head -c 20; exit 4")
    status, _, said = bench.run("formail.sh", PLAIN)
    assert (status, said) == (1, "451 4.3.0 The header could not be added, try again later")


def test_altermime(bench: Bench) -> None:
    bench.program("altermime")
    disclaimer = bench.directory / "disclaimer.txt"
    disclaimer.write_text("-- \nNo warranty\n", "utf-8")
    status, message, _ = bench.run("altermime.sh", PLAIN, DISCLAIMER=str(disclaimer))
    assert status == 0
    assert b"Hello Bob," in message
    assert b"No warranty" in message


def test_altermime_without_disclaimer(bench: Bench) -> None:
    status, message, said = bench.run("altermime.sh", PLAIN, DISCLAIMER=str(bench.directory / "absent"))
    assert (status, said) == (1, "451 4.3.0 The disclaimer could not be added, try again later")
    assert message == PLAIN


def test_envelope(bench: Bench) -> None:
    blocked = bench.directory / "blocked"
    blocked.write_text("bad@client.example\n-f/etc/passwd@client.example\n", "utf-8")
    where = {"BLOCKED": str(blocked)}
    assert bench.run("envelope.sh", PLAIN, **where) == (0, PLAIN, "")
    refused = (1, b"", "550 5.7.1 We take no mail from this address")
    assert bench.run("envelope.sh", PLAIN, SENDER="BAD@client.example", **where) == refused
    assert bench.run("envelope.sh", PLAIN, SENDER="-f/etc/passwd@client.example", **where) == refused
    for recipients in ("postmaster@mx.example", "Postmaster", "postmaster@MX.example\npostmaster"):
        passed = bench.run("envelope.sh", PLAIN, SENDER="bad@client.example", RECIPIENTS=recipients, **where)
        assert passed == (0, PLAIN, "")
    # Whoever adds the postmaster reaches nobody else with it, nor does one who has a part of the name.
    for recipients in (
        "other@mx.example\npostmaster@mx.example",
        "postmaster@mx.example\nother@mx.example",
        "other\u2028postmaster@mx.example",
        "postmaster@mx.example.client.example",
    ):
        assert bench.run("envelope.sh", PLAIN, SENDER="bad@client.example", RECIPIENTS=recipients, **where) == refused


@pytest.mark.parametrize("separator", ["\u0085", "\u2028", "\u2029", "\x0b", "\x1c"])
def test_the_split_that_the_page_shows_for_python(separator: str) -> None:
    told = {"RECIPIENTS": f"a{separator}b@mx.example\nc@mx.example"}
    shown = re.search(r'`(os\.environ\["RECIPIENTS"\]\.split\(.*?\))`', PAGE)
    assert shown is not None
    code = f"import os; print(len({shown[1]}), len(os.environ['RECIPIENTS'].splitlines()))"
    ran = subprocess.run([sys.executable, "-c", code], env=told, capture_output=True, check=True)
    assert ran.stdout.split() == [b"2", b"3"]


def test_chain(bench: Bench) -> None:
    filters = bench.directory / "filters"
    filters.mkdir()
    (filters / "10-tag").write_text('#!/bin/sh\nprintf "P.S.\\r\\n" >>"$EMAIL"\n', "utf-8")
    (filters / "20-judge").write_text('#!/bin/sh\n! grep -q SPAM "$EMAIL" || { echo "550 no" >&2; exit 3; }\n', "utf-8")
    (filters / "30-not-executable").write_text("#!/bin/sh\nexit 1\n", "utf-8")
    for name in ("10-tag", "20-judge"):
        (filters / name).chmod(0o755)
    assert bench.run("chain.sh", PLAIN, FILTERS=str(filters)) == (0, PLAIN + b"P.S.\r\n", "")
    status, _, said = bench.run("chain.sh", SPAM, FILTERS=str(filters))
    assert (status, said) == (3, "550 no")


def test_discard(bench: Bench) -> None:
    assert bench.run("discard.py", PLAIN) == (0, PLAIN, "")
    reply = b"Auto-Submitted: auto-replied\r\n" + PLAIN
    assert bench.run("discard.py", reply) == (0, reply, "")
    assert bench.run("discard.py", reply, SENDER="<>") == (1, b"", "250 2.0.0 Thank you")


def test_an_exception_bounces_no_mail(bench: Bench) -> None:
    (bench.directory / "email.py").write_text(
        "def message_from_bytes(_):\n    raise ValueError('odd\\nheader')\n", "utf-8"
    )
    status, _, said = bench.run("discard.py", PLAIN)
    assert (status, said) == (1, "451 4.3.0 The filter failed (ValueError), try again later")


@pytest.mark.parametrize("address", HOSTILE)
@pytest.mark.parametrize("name", SCRIPTS)
def test_hostile_envelope(name: str, address: str, bench: Bench) -> None:
    """No value of an envelope is run, becomes a file, an option or a header of its own."""
    (bench.directory / "blocked").write_text("bad@client.example\n", "utf-8")
    (bench.directory / "disclaimer.txt").write_text("No warranty\n", "utf-8")
    environment = dict.fromkeys(("SENDER", "RECIPIENTS", "HELO", "REMOTE_HELO"), address) | {
        "BLOCKED": str(bench.directory / "blocked"),
        "DISCLAIMER": str(bench.directory / "disclaimer.txt"),
        "FILTERS": str(bench.directory / "none"),
    }
    bench.wrap("spamc", "-d", "127.0.0.1", "-p", "1", "--connect-retries=1")
    status, message, said = bench.run(name, PLAIN, **environment)
    assert not (bench.directory / "pwned").exists()
    assert not (bench.directory / "tmp/pwned").exists()
    assert b"X-Injected" not in message.replace(b"\nX-Envelope-From: <X-Injected", b"")
    expected = {"spamc.sh": "451 4.7.1", "clamdscan.sh": "451 4.7.1"}
    if name in expected:
        assert said.startswith(expected[name])
    else:
        assert status == 0, said
        assert b"Hello Bob," in message
