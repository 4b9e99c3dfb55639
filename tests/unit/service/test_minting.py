"""The minting process makes certificates for workers, comes back when it dies, and alone has the keys of the CAs."""

from __future__ import annotations

import base64
import os
import select
import signal
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.certificates.names import dns_names
from proxsmtp_tp.certificates.requests import Request, encode_request
from proxsmtp_tp.service.minting import serve
from tests.unit.certificates.fixtures import make_ca
from tests.unit.service.conftest import eventually, is_alive
from tests.unit.service.test_user import may_become_nobody

if TYPE_CHECKING:
    from tests.unit.service.conftest import Client, Daemon


@pytest.fixture
def terminating(daemon: Daemon) -> Daemon:
    """Configured with a CA of its own; not started."""
    daemon.configure(Tls="terminate")
    return daemon


def minted(client: Client, name: str) -> str:
    """The PEM of a new certificate."""
    return base64.b64decode(client.ask(f"MINT={name}")).decode("ascii")


def minting_process(daemon: Daemon) -> int:
    """The last one that was started."""
    lines = [line for line in daemon.log().splitlines() if "minting process" in line and line.endswith(" started")]
    return int(lines[-1].split()[-2])


def folder(daemon: Daemon) -> Path:
    return daemon.folder / "state" / "tls"


def test_the_cas_are_made_at_the_first_start(terminating: Daemon) -> None:
    terminating.start()
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder(terminating).iterdir()}
    assert modes == {"ca.pem": 0o644, "ca.key": 0o600, "untrusted-ca.pem": 0o644, "untrusted-ca.key": 0o600}
    assert (
        f"made a CA: {folder(terminating)}/ca.pem: clients must trust it: proxsmtp-tp tls-ca export"
        in terminating.log()
    )
    before = (folder(terminating) / "ca.pem").read_bytes()
    terminating.signal(signal.SIGTERM)
    assert terminating.wait() == 0
    terminating.start()
    assert (folder(terminating) / "ca.pem").read_bytes() == before
    assert terminating.log().count("made a CA") == 2


def test_a_worker_gets_certificates_that_the_strict_check_takes(terminating: Daemon) -> None:
    terminating.start()
    pem = minted(terminating.connect(), "mx.example.org")
    assert dns_names(ssl.PEM_cert_to_DER_cert(pem)) == ("mx.example.org",)
    leaf = terminating.folder / "leaf.pem"
    leaf.write_text(pem)
    ca = folder(terminating) / "ca.pem"
    subprocess.run(["openssl", "verify", "-x509_strict", "-CAfile", ca, leaf], check=True, capture_output=True)
    untrusted = folder(terminating) / "untrusted-ca.pem"
    assert subprocess.run(
        ["openssl", "verify", "-CAfile", untrusted, leaf], check=False, capture_output=True
    ).returncode


def test_a_minting_process_that_ends_is_started_again(terminating: Daemon) -> None:
    terminating.start()
    client = terminating.connect()
    minted(client, "a.example")
    first = minting_process(terminating)
    os.kill(first, signal.SIGKILL)
    assert dns_names(ssl.PEM_cert_to_DER_cert(minted(client, "b.example"))) == ("b.example",)
    assert minting_process(terminating) != first
    assert f"minting process {first} ended: signal SIGKILL: it is started again" in terminating.log()
    assert {worker["pid"] for worker in terminating.status()["workers"]}, "no worker was lost with it"


def test_a_waiting_request_is_answered_when_the_process_ends(terminating: Daemon) -> None:
    terminating.start()
    client = terminating.connect()
    minted(client, "a.example")
    first = minting_process(terminating)
    os.kill(first, signal.SIGSTOP)
    client._socket.sendall(b"MINT=b.example\n")
    eventually(lambda: Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    os.kill(first, signal.SIGKILL)
    assert b"CERTIFICATE" in base64.b64decode(client.line())


def test_no_worker_and_nothing_that_it_runs_has_a_key_of_a_ca(terminating: Daemon) -> None:
    root = may_become_nobody()
    if root:
        terminating.configure(Tls="terminate", User="nobody")
    terminating.start()
    client = terminating.connect()
    assert "CERTIFICATE" in minted(client, "a.example")
    assert ".key" not in client.ask("FILES")
    keys = (folder(terminating) / "ca.key", folder(terminating) / "untrusted-ca.key")
    if root:
        assert [key.stat().st_uid for key in keys] == [0, 0]
        assert {client.ask(f"READ={key}") for key in keys} == {"Permission denied"}
        assert minting_status(terminating)["Uid"].split() == ["65534"] * 4
        # after its death, too, when there is no root to open the file again
        os.kill(minting_process(terminating), signal.SIGKILL)
        assert "CERTIFICATE" in minted(client, "b.example")
    for pid in (client.worker, terminating.master):
        memory = memory_of(pid)
        for key in keys:
            # the second line has most of the secret number (RFC 5915), the last one only public octets
            assert [line for line in key.read_bytes().splitlines()[1:3] if line in memory] == [], (
                pid,
                terminating.master,
            )


def memory_of(pid: int) -> bytes:
    """What a process has in its heap and its anonymous mappings (proc(5)); as root."""
    found = bytearray()
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            words = line.split()
            if words[1].startswith("rw") and (len(words) < 6 or words[5].startswith("[heap")):
                start, _, end = words[0].partition("-")
                memory.seek(int(start, 16))
                found += memory.read(int(end, 16) - int(start, 16))
    return bytes(found)


def minting_status(daemon: Daemon) -> dict[str, str]:
    text = Path(f"/proc/{minting_process(daemon)}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_it_holds_no_listening_socket_and_no_socket_of_the_master(terminating: Daemon) -> None:
    terminating.start()
    minted(terminating.connect(), "a.example")
    folder_of_descriptors = Path(f"/proc/{minting_process(terminating)}/fd")

    def sockets() -> int:
        """Without the first three descriptors, which the test runner gives; the last answer may still be closing."""
        numbers = [path for path in folder_of_descriptors.iterdir() if int(path.name) > 2]
        return sum(os.path.realpath(path).rpartition("/")[2].startswith("socket:") for path in numbers)

    eventually(lambda: sockets() == 1)
    terminating.process.kill()  # type: ignore[union-attr]
    eventually(terminating.refuses)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_last_worker(terminating: Daemon, number: signal.Signals) -> None:
    terminating.start()
    client = terminating.connect()
    assert client.ask("BUSY") == "250 BUSY"
    pid = minting_process(terminating)
    terminating.signal(number)
    eventually(terminating.refuses)
    assert is_alive(pid)
    assert "CERTIFICATE" in minted(client, "a.example")
    client.ask("DONE")
    eventually(lambda: not is_alive(pid))


def test_a_reload_keeps_it(terminating: Daemon) -> None:
    terminating.start()
    pid = minting_process(terminating)
    before = terminating.workers()
    terminating.reload()
    assert "CERTIFICATE" in minted(terminating.connect_to_another(before), "a.example")
    assert minting_process(terminating) == pid


def test_a_reload_that_needs_the_first_ca_needs_a_restart(daemon: Daemon) -> None:
    daemon.configure(Tls="pass")
    daemon.start()
    assert not folder(daemon).exists()
    daemon.configure(Tls="terminate")
    daemon.reload("stays in force\n")
    assert "Tls: terminate needs a CA, whose key is read when the daemon starts: restart it" in daemon.log()
    assert daemon.connect().ask("MINT=a.example") == "none: there is no CA, and no TlsCertificate for this server"


def test_a_ca_of_the_operator(daemon: Daemon, tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "own")
    key = tmp_path / "own" / "ca.key"
    key.touch(0o600)
    key.write_bytes(ca.key)
    daemon.configure(Tls="terminate", TlsCa=f"{ca.file} {key}")
    daemon.start()
    assert ca.anchors.check([ssl.PEM_cert_to_DER_cert(minted(daemon.connect(), "a.example"))]) == ""
    assert sorted(path.name for path in folder(daemon).iterdir()) == ["untrusted-ca.key", "untrusted-ca.pem"]
    daemon.configure(Tls="terminate")
    daemon.reload()
    assert "TlsCa: the change needs a restart of the daemon" in daemon.log()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda path: (path / "ca.key").chmod(0o640), "ca.key: others may read this key: chmod 600"),
        (lambda path: (path / "ca.key").write_text("nothing"), "the key cannot be read"),
        (lambda path: (path / "ca.pem").write_text("nothing"), "there is no certificate in PEM in it"),
        (lambda path: (path / "ca.pem").write_bytes((path / "untrusted-ca.pem").read_bytes()), "the key is not that"),
    ],
)
def test_files_that_cannot_be_used_end_the_start(terminating: Daemon, change: object, problem: str) -> None:
    terminating.start()
    terminating.signal(signal.SIGTERM)
    assert terminating.wait() == 0
    change(folder(terminating))  # type: ignore[operator]
    terminating.launch()
    assert terminating.wait() == 1
    assert problem in terminating.log()


def test_odd_questions_do_not_end_it() -> None:
    """A worker that is taken over must not take the certificates from the others."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    serving = threading.Thread(target=serve, args=(theirs, {}), daemon=True)
    serving.start()
    reading, writing = os.pipe()
    answers, asker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    answers.settimeout(20)
    with ours, theirs, answers, asker:
        socket.send_fds(ours, [b"{}"], [writing])  # no socket
        os.close(writing)
        assert select.select([reading], [], [], 20)[0], "it is kept"
        os.close(reading)
        for question in (b"[" * 30_000, b"[]", b"\xff", b"{}", encode_request(Request(("mx.example",), verified=True))):
            socket.send_fds(ours, [question], [asker.fileno()])
            assert b"refused" in answers.recv(1 << 17)
        ours.close()
        serving.join(20)
    assert not serving.is_alive()
