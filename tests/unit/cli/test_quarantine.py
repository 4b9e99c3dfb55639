"""The command quarantine: list, show, delete, and release to a real SMTP server."""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.cli.main import main
from proxsmtp_tp.filters.mail import Mail, Octets
from proxsmtp_tp.filters.quarantine import QuarantineFolder

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = b"Subject: x\r\n\r\n.dot\r\nbody \xff\r\n"


def _user_of(port: int, server: int) -> int | None:
    """The user of the socket with this local port that is connected to the server's (proc(5), /proc/net/tcp).

    Sockets of other connections may have the same local port.
    """
    ends = [f"0100007F:{port:04X}", f"0100007F:{server:04X}"]
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return next((int(row[7]) for row in rows if row[1:3] == ends), None)


class Server(threading.Thread):
    """Takes one session; `refuse` is the beginning of a line that gets 550."""

    def __init__(self, refuse: bytes = b"never") -> None:
        super().__init__(daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.refuse = refuse
        self.lines: list[bytes] = []
        self.message = b""
        self.user: int | None = None
        """Whose socket the client's is."""

    def run(self) -> None:
        with self._listener, suppress(OSError):  # `end` ends accept(2); a client need not read the reply to QUIT
            self._session()

    def end(self) -> None:
        """End it, whether or not a client came."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.join(10)

    def _session(self) -> None:
        peer, (_, port) = self._listener.accept()
        self.user = _user_of(port, self.port)
        with peer, peer.makefile("rwb", buffering=0) as file:
            file.write(b"220 mx\r\n")
            while line := file.readline():
                self.lines.append(line.rstrip(b"\r\n"))
                if line.upper().startswith(self.refuse.upper()):
                    file.write(b"550 5.1.1 no\r\n")
                elif line.upper().startswith(b"DATA"):
                    file.write(b"354 go\r\n")
                    while (text := file.readline()) != b".\r\n":
                        self.message += text
                    file.write(b"550 5.7.1 no\r\n" if self.refuse == b"." else b"250 2.0.0 queued\r\n")
                else:
                    file.write(b"250 ok\r\n")


@pytest.fixture
def folder(tmp_path: Path) -> QuarantineFolder:
    return QuarantineFolder(str(tmp_path / "q"))


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "x.conf"
    path.write_text(f"OutAddress: 192.0.2.1\nFilter: a pipe cat\nQuarantineDirectory: {tmp_path}/q\n")
    return str(path)


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    started.start()
    yield started
    started.end()


def kept(folder: QuarantineFolder, port: int, *, tls: bool = False, parameters: str = "") -> str:
    envelope = {
        "sender": "a@x.example",
        "sender_parameters": f"SIZE=9 BODY=8BITMIME AUTH=<> {parameters}".strip(),
        "recipients": ["b@y.example", "c\udcff@y.example"],
        "recipient_parameters": ["NOTIFY=NEVER", ""],
    }
    facts = {"id": "01AB", "kind": "quarantine", "reason": "vi\nrus", "server": "127.0.0.1", "server_port": port}
    return folder.add(Mail.of(Octets(TEXT)), facts | {"envelope": envelope, "tls": tls})


def test_list_and_show(folder: QuarantineFolder, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder.path.mkdir()
    assert main(["quarantine", "-f", config]) == 0
    assert capsys.readouterr().out == ""
    name = kept(folder, 25)
    assert main(["quarantine", "-f", config]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{name}  20")
    assert said.endswith(f"  quarantine  {len(TEXT)}  <a@x.example> to <b@y.example> and 1 more  vi\\nrus\n")
    assert main(["quarantine", "list", "-f", config, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == name
    assert main(["quarantine", "show", name, "-f", config]) == 0
    said = capsys.readouterr().out
    assert "envelope.recipients: b@y.example, c\\udcff@y.example\n" in said
    assert "\nSubject: x\n\n.dot\nbody \\xff\n" in said


def test_delete(folder: QuarantineFolder, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = kept(folder, 25)
    assert main(["quarantine", "delete", name, "-f", config]) == 0
    assert list(folder.path.iterdir()) == []
    assert main(["quarantine", "delete", name, "../x", "-f", config]) == 1
    assert "../x: '../x' is no name" in capsys.readouterr().err


def test_release(folder: QuarantineFolder, config: str, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    name = kept(folder, server.port)
    assert main(["quarantine", "release", name, "-f", config]) == 0
    assert capsys.readouterr().out == f"released {name}: 250 2.0.0 queued\n"
    assert server.lines[1:4] == [
        b"MAIL FROM:<a@x.example> BODY=8BITMIME",
        b"RCPT TO:<b@y.example> NOTIFY=NEVER",
        b"RCPT TO:<c\xff@y.example>",
    ]
    assert server.message == TEXT.replace(b"\r\n.", b"\r\n..")
    assert list(folder.path.iterdir()) == []


@pytest.mark.parametrize(("local", "user"), [("", 0), ("RuleLocal: on\nUser: 65534\n", 65534)])
def test_with_rule_local_a_release_is_the_daemons_connection(
    folder: QuarantineFolder, config: str, server: Server, local: str, user: int
) -> None:
    """The rules let only the connections of the daemon's user pass: others come back to the filters."""
    with Path(config).open("a") as file:
        file.write(local)
    assert main(["quarantine", "release", kept(folder, server.port), "-f", config]) == 0
    assert server.user == user
    assert os.geteuid() == 0


@pytest.mark.parametrize("refuse", [b"MAIL", b"RCPT TO:<c", b"DATA", b"."])
def test_a_refused_release_keeps_the_message(
    folder: QuarantineFolder, config: str, server: Server, refuse: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refuse = refuse
    name = kept(folder, 1)
    assert main(["quarantine", "release", name, "-f", config, "--server", f"127.0.0.1:{server.port}"]) == 1
    assert f"{name}: not released: " in (said := capsys.readouterr().err)
    assert " no" in said
    assert folder.entry(name).path.exists()
    assert server.message == (TEXT.replace(b"\r\n.", b"\r\n..") if refuse == b"." else b"")


def test_what_came_encrypted_is_not_sent_in_clear(
    folder: QuarantineFolder, config: str, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever takes STARTTLS out of the server's reply to EHLO must not get the message."""
    name = kept(folder, server.port, tls=True)
    assert main(["quarantine", "release", name, "-f", config]) == 1
    assert "its session was encrypted, and the server does not offer STARTTLS" in capsys.readouterr().err
    assert [line[:4] for line in server.lines] == [b"ehlo"]
    assert folder.entry(name).path.exists()


def test_a_message_that_demands_a_verified_server_is_not_sent(
    folder: QuarantineFolder, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = kept(folder, 1, tls=True, parameters="RequireTLS")
    assert main(["quarantine", "release", name, "-f", config]) == 1
    assert "demands TLS with a verified server" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["show", "release"])
def test_a_link_is_not_read(
    folder: QuarantineFolder, config: str, server: Server, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = kept(folder, server.port)
    entry = folder.entry(name)
    copy = folder.path / "secret"
    entry.path.rename(copy)  # as long as the message
    entry.path.symlink_to(copy)
    assert main(["quarantine", action, name, "-f", config]) == 1
    said = capsys.readouterr()
    assert "Too many levels of symbolic links" in said.err
    assert "body" not in said.out
    assert not server.message


def test_without_a_server_or_a_quarantine(
    folder: QuarantineFolder, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = kept(folder, 0)
    assert main(["quarantine", "release", name, "-f", config]) == 1
    assert "name one with --server" in capsys.readouterr().err
    assert main(["quarantine", "release", name, "-f", config, "--server", "/x"]) == 1
    (tmp_path / "x.conf").write_text("OutAddress: 192.0.2.1\n")
    assert main(["quarantine", "-f", config]) == 2
