"""doctor: each filter of a chain, as the daemon's user sees it."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.gateway.doctor.findings import State
from tests.gateway.daemon_host import DaemonHost
from tests.typed_fixes import types

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxsmtp_tp.gateway.doctor.findings import Finding

WORKER = '#!/bin/sh\nprintf "proxsmtp-worker=1\\n\\n"\nid -u >&2\ncat >/dev/null\n'


@pytest.fixture(scope="module")
def host() -> Iterator[DaemonHost]:
    """The chain of the daemon is one command; the tests write others for doctor."""
    found = DaemonHost(TransparentProxy="client", FilterCommand="", Filter="usual pipe cat")
    yield found
    found.close()


@contextmanager
def chain(host: DaemonHost, *lines: str) -> Iterator[None]:
    """The configuration file has these filters."""
    healthy = host.instance.config.read_text()
    filters = "".join(f"Filter: {line.format(folder=host.folder)}\n" for line in lines)
    host.instance.config.write_text(healthy.replace("Filter: usual pipe cat\n", filters))
    try:
        yield
    finally:
        host.instance.config.write_text(healthy)


def filters(host: DaemonHost) -> list[Finding]:
    return [finding for finding in host.look() if finding.step.startswith("filter,")]


@contextmanager
def server(path: Path, greeting: bytes, mode: int = 0o666) -> Iterator[None]:
    """A server on a unix socket, which says this and waits for the client to leave."""
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(mode)

        def serve() -> None:
            while True:
                try:
                    link, _ = listening.accept()
                except OSError:
                    return
                with closing(link), suppress(OSError):
                    link.sendall(greeting)
                    while link.recv(4096):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            path.unlink()


CHAINS = {
    "a pipe cat": (None, "/cat"),
    "a file no-such-program": (State.WRONG, "no-such-program is not installed (PATH is"),
    "a pipe /etc/passwd failure=pass": (State.WRONG, "cannot be run by 65534; messages pass without its verdict"),
    "a worker {folder}/worker": (None, "worker: ready"),
    "a worker {folder}/missing failure=reject": (State.WRONG, "missing: No such file or directory; messages are rej"),
    "a worker false": (State.WRONG, "; messages are deferred (failure=tempfail)"),
    "a worker cat": (State.UNSEEN, "no answer within 4 s; it may take start=10 s"),
    "a smtp {folder}/answers": (None, "answers: 220 scanner"),
    "a smtp {folder}/other": (State.WRONG, "greets with b'550 no"),
    "a milter {folder}/silent mode=shadow": (State.WRONG, "no answer within 4 s; only the log lacks its verdict"),
    "a clamd {folder}/nobody failure=quarantine": (State.WRONG, "nobody: No such file or directory; messages go to q"),
    "a rspamd 127.0.0.1:9": (State.WRONG, "127.0.0.1:9: Connection refused; messages are deferred"),
    "a smtp {folder}/nobody,{folder}/answers": (State.WRONG, "No such file or directory; another address is used"),
    "a smtp {folder}/closed": (State.WRONG, "closed: Permission denied for nobody; messages are deferred"),
}


@pytest.fixture(scope="module")
def servers(host: DaemonHost) -> Iterator[None]:
    worker = host.folder / "worker"
    worker.write_text(WORKER)
    worker.chmod(0o755)
    folder = host.folder
    with (
        server(folder / "answers", b"220 scanner\r\n"),
        server(folder / "other", b"550 no\r\n"),
        server(folder / "silent", b""),
        server(folder / "closed", b"220 scanner\r\n", 0o600),
    ):
        yield


@pytest.mark.usefixtures("servers")
def test_each_filter_of_a_chain(host: DaemonHost) -> None:
    """All of them at once: one that does not answer keeps none of the others from being asked."""
    with chain(host, *(line.replace("a ", f"f{number} ", 1) for number, line in enumerate(CHAINS))):
        found = filters(host)
    for number, (line, (state, text)) in enumerate(CHAINS.items()):
        own = [finding for finding in found if finding.step == f"filter, f{number}"]
        assert len(own) == 1 + line.count(",")
        assert own[0].state is (state or State.OK), own
        assert text in own[0].text, own
        assert bool(own[0].fix) == ("passwd" in line)
    assert all(finding.ok for finding in found if finding.step == "filter, f12" and "answers" in finding.text)


@types("filter's socket")
def test_a_socket_that_is_closed_to_the_daemon(host: DaemonHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fix names the groups of the socket and of its directory. /etc is a copy that only the daemon sees."""
    folder, usual = host.folder / "run", host.instance.host.command
    folder.mkdir(mode=0o750)
    copy = f"cp -a /etc {host.folder}/etc; mount --bind {host.folder}/etc /etc && echo && exec sleep 600"
    own = ["unshare", "--mount", "--propagation=private", "sh", "-c", copy]
    with (
        monkeypatch.context() as patch,
        server(folder / "socket", b"220 scanner\r\n", 0o660),
        subprocess.Popen(own, stdout=subprocess.PIPE) as holder,
    ):
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline()
            os.chown(folder, 0, 8)  # mail, of Debian's base-passwd
            os.chown(folder / "socket", 0, 12)  # man
            enter = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt"]
            patch.setattr(host.instance.host, "command", lambda *words: [*usual(), *enter, *map(str, words)])
            host.restart()
            with chain(host, "scan smtp {folder}/run/socket"):
                (found,) = filters(host)
                assert found.state is State.WRONG
                assert "Permission denied for nobody; messages are deferred (failure=tempfail)" in found.text
                assert found.fix.startswith("usermod -a -G mail,man nobody && kill ")
                host.type(found.fix)
                (found,) = filters(host)
                assert found.ok, found
                folder.chmod(0o700)  # no group helps
                (found,) = filters(host)
                assert found.state is State.WRONG
                assert not found.fix
        finally:
            holder.kill()
    host.restart()
