"""Tools of administrators against the daemon: swaks, openssl s_client, posttls-finger."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.tls.daemon import COMMAND, NAME, Daemon, MailServer, certificate_files, daemon, mail_server, run
from tests.unit.net.tls_legs import server_leg

if TYPE_CHECKING:
    from collections.abc import Iterator


def own_certificate(folder: Path) -> str:
    """Our certificate is not that of the server, so a test can tell which one it gets."""
    chain, key = certificate_files(folder, "gateway.example")
    return f"TlsCertificate: {chain} {key}\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MailServer]:
    """It offers STARTTLS."""
    with mail_server(tmp_path) as running:
        yield running


@pytest.fixture
def terminating(tmp_path: Path, server: MailServer) -> Iterator[Daemon]:
    """It judges what comes in TLS."""
    with daemon(tmp_path, server.port, f"Tls: terminate\n{own_certificate(tmp_path)}FilterCommand: cat\n") as running:
        yield running


def swaks(port: int, *options: str) -> tuple[int, str]:
    """One message."""
    return run(
        "swaks", "--server", f"127.0.0.1:{port}", "--from", "a@client.example", "--to", "b@mx.example",
        "--ehlo", "client.example", "--body", "a line", *options,
    )  # fmt: skip


def s_client(port: int, *options: str, text: str = "quit\r\n") -> str:
    """openssl s_client with STARTTLS."""
    arguments = ("-starttls", "smtp", "-connect", f"127.0.0.1:{port}", "-servername", NAME, "-crlf", *options)
    return run("openssl", "s_client", *arguments, text=text)[1]


# terminate


@pytest.mark.parametrize("protocol", ["tlsv1_2", "tlsv1_3"])
def test_swaks_sends_by_starttls(terminating: Daemon, server: MailServer, protocol: str) -> None:
    status, said = swaks(terminating.port, "--tls", "--tls-protocol", protocol)
    assert status == 0, said + terminating.log
    assert "CN=gateway.example" in said or "gateway.example" in said
    assert "250 2.0.0 queued" in said
    assert [(b"a line" in message.text, message.tls) for message in server.messages] == [(True, True)]
    log = terminating.logged("status=FILTERED")
    assert f"tls={protocol.replace('tlsv1_', 'TLSv1.')}" in log


def test_swaks_sends_several_messages_pipelined(terminating: Daemon, server: MailServer) -> None:
    for size in (1, 100_000):
        body = "x" * 70 + "\\n"
        status, said = swaks(terminating.port, "--tls", "--pipeline", "--body", body * (size // 70 + 1))
        assert status == 0, said[-2000:]
    assert [message.tls for message in server.messages] == [True, True]
    assert len(server.messages[1].text) > 100_000


def test_a_client_that_stays_in_clear_is_served(terminating: Daemon, server: MailServer) -> None:
    status, said = swaks(terminating.port)
    assert status == 0, said
    assert [message.tls for message in server.messages] == [False]


def test_starttls_is_gone_after_tls(terminating: Daemon) -> None:
    _, said = swaks(terminating.port, "--tls", "--quit-after", "EHLO")
    before, _, after = said.partition("=== TLS started")
    assert "STARTTLS" in before
    assert "STARTTLS" not in after
    assert "250" in after


def test_openssl_verifies_our_certificate(terminating: Daemon, tmp_path: Path) -> None:
    ca = str(tmp_path / "gateway.example.pem")
    said = s_client(terminating.port, "-CAfile", ca, "-verify_return_error", "-verify_hostname", "gateway.example")
    assert "Verification: OK" in said, said + terminating.log


@pytest.mark.parametrize("protocol", ["-tls1_2", "-tls1_3"])
def test_a_client_that_rejects_our_certificate_is_named(terminating: Daemon, protocol: str) -> None:
    s_client(terminating.port, "-verify_return_error", protocol)
    terminating.logged("unknown CA: the client rejects our certificate")


def test_another_protocol_gets_its_alert(terminating: Daemon) -> None:
    assert "alert number 120" in s_client(terminating.port, "-alpn", "h2,http/1.1")


def test_tls_1_1_is_refused(terminating: Daemon) -> None:
    said = s_client(terminating.port, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    assert "alert protocol version" in said, said
    terminating.logged("TLS with the client failed: unsupported protocol: closing")


@pytest.mark.parametrize(("level", "words"), [("encrypt", "Untrusted"), ("secure", "Verified")])
def test_posttls_finger(terminating: Daemon, tmp_path: Path, level: str, words: str) -> None:
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\n")
    options = ["-F", str(tmp_path / "gateway.example.pem")] if level == "secure" else []
    match = ["gateway.example"] if level == "secure" else []
    server = f"[127.0.0.1]:{terminating.port}"
    status, said = run(
        "posttls-finger",
        "-c",
        "-l",
        level,
        "-L",
        "summary,verbose",
        *options,
        server,
        *match,
        MAIL_CONFIG=str(tmp_path),
    )
    assert status == 0, said
    assert f"{words} TLS connection established" in said, said


# Attacks on sockets (facts: RFC 3207 section 6, CVE-2011-0411, CVE-2021-38371).


class Clear:
    """A client in clear."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.heard = b""
        self.reply()
        self.ask(b"EHLO client.example\r\n")

    def reply(self) -> bytes:
        """One reply, perhaps of several lines; b"": the end."""
        while True:
            lines = self.heard.split(b"\r\n")
            for at, line in enumerate(lines[:-1]):
                if line[3:4] == b" ":
                    self.heard = b"\r\n".join(lines[at + 1 :])
                    return b"\r\n".join(lines[: at + 1])
            try:
                more = self.sock.recv(4096)
            except ConnectionResetError:
                more = b""
            if not more:
                return b""
            self.heard += more

    def ask(self, line: bytes) -> bytes:
        """A command and its reply."""
        self.sock.sendall(line)
        return self.reply()

    def tls(self) -> ssl.SSLSocket:
        """STARTTLS and the handshake."""
        assert self.ask(b"STARTTLS\r\n").startswith(b"220")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(self.sock, server_hostname=NAME)


@pytest.mark.parametrize("behind", [b"RSET\r\n", b"R", b"MAIL FROM:<evil@client.example>\r\n", b"\x16\x03\x01"])
def test_nothing_may_be_after_starttls(terminating: Daemon, behind: bytes) -> None:
    client = Clear(terminating.port)
    with client.sock:
        answer = client.ask(b"STARTTLS\r\n" + behind)
        assert answer[:3] in {b"503", b"554", b"421", b""}, answer
        assert client.reply() == b""


@pytest.mark.parametrize("step", ["DATA", "text", "dot"])
def test_a_fin_without_close_notify_is_no_end_of_message(terminating: Daemon, server: MailServer, step: str) -> None:
    client = Clear(terminating.port)
    tls = client.tls()
    for line in (b"EHLO client.example\r\n", b"MAIL FROM:<a@client.example>\r\n", b"RCPT TO:<b@mx.example>\r\n"):
        tls.sendall(line)
        while not (reply := tls.recv(4096)):
            pass
        assert reply.startswith(b"250"), reply
    tls.sendall(b"DATA\r\n")
    assert tls.recv(4096).startswith(b"354")
    if step != "DATA":
        tls.sendall(b"Subject: half\r\n\r\nthe first line\r\n" + (b"." if step == "dot" else b""))
    raw = socket.socket(fileno=tls.detach())
    raw.shutdown(socket.SHUT_WR)
    raw.settimeout(20)
    while raw.recv(4096):
        pass
    raw.close()
    status, said = swaks(terminating.port, "--tls")
    assert status == 0, said
    assert [b"the first line" in message.text for message in server.messages] == [False]


# pass, strip, and servers without TLS


def test_pass_shows_the_servers_own_certificate(tmp_path: Path, server: MailServer) -> None:
    with daemon(tmp_path, server.port, "Tls: pass\nFilterCommand: cat\n") as running:
        said = s_client(running.port, "-CAfile", str(tmp_path / f"{NAME}.pem"), "-verify_return_error")
        assert "Verification: OK" in said, said + running.log
        status, said = swaks(running.port, "--tls")
        assert status == 0, said
        running.logged("TLS passed on, not judged (Tls: pass)")
    assert [message.tls for message in server.messages] == [True]


def test_without_a_tls_line_starttls_is_removed(tmp_path: Path, server: MailServer) -> None:
    with daemon(tmp_path, server.port, "FilterCommand: cat\n") as running:
        _, said = swaks(running.port, "--tls-optional")
        assert "Host did not advertise STARTTLS" in said
    assert [message.tls for message in server.messages] == [False]


def test_tls_is_mirrored_and_never_invented(tmp_path: Path) -> None:
    with (
        mail_server(tmp_path, tls=False) as server,
        daemon(tmp_path, server.port, f"Tls: terminate\n{own_certificate(tmp_path)}FilterCommand: cat\n") as running,
    ):
        status, said = swaks(running.port, "--tls")
        assert status != 0
        assert "Host did not advertise STARTTLS" in said


@pytest.mark.parametrize("level", ["encrypt", "verify"])
def test_a_server_below_the_level_gets_no_mail(tmp_path: Path, level: str) -> None:
    """Its certificate is self-signed."""
    with mail_server(tmp_path, tls=level == "verify") as server:
        lines = f"Tls: terminate\nUpstreamTls: {level}\n{own_certificate(tmp_path)}FilterCommand: cat\n"
        with daemon(tmp_path, server.port, lines) as running:
            status, said = swaks(running.port, *(["--tls"] if level == "verify" else []))
            assert status != 0, said
            assert "4.7.4" in said + running.log if level == "encrypt" else "4.7.5" in said + running.log, said
        assert not server.messages


# Certificates that the daemon makes, and servers that inject.


def exported_ca(tmp_path: Path) -> str:
    """The file that clients would have in their trust stores."""
    status, said = run(
        str(COMMAND), "tls-ca", "export", "-f", str(tmp_path / "conf"), STATE_DIRECTORY=str(tmp_path / "state")
    )
    assert status == 0, said
    file = tmp_path / "exported.pem"
    file.write_text(said)
    return str(file)


def test_a_verified_server_has_a_certificate_that_clients_trust(tmp_path: Path, server: MailServer) -> None:
    trust = f"UpstreamCaFile: {tmp_path}/{NAME}.pem\n"
    with daemon(tmp_path, server.port, f"Tls: terminate\n{trust}FilterCommand: cat\n") as running:
        options = ("-CAfile", exported_ca(tmp_path), "-verify_return_error", "-verify_hostname", NAME)
        said = s_client(running.port, *options)
        assert "Verification: OK" in said, said + running.log
        status, said = swaks(running.port, "--tls")
        assert status == 0, said
        running.logged("status=FILTERED")
    assert [message.tls for message in server.messages] == [True]


def test_an_unverified_server_has_none(tmp_path: Path, server: MailServer) -> None:
    """A client that verifies fails, as it would without us; one that does not has TLS."""
    with daemon(tmp_path, server.port, "Tls: terminate\nFilterCommand: cat\n") as running:
        said = s_client(running.port, "-CAfile", exported_ca(tmp_path), "-verify_return_error")
        assert "Verification: OK" not in said, said
        running.logged("the client rejects our certificate")
        status, said = swaks(running.port, "--tls")
        assert status == 0, said
    assert [message.tls for message in server.messages] == [True]


@pytest.mark.parametrize("behind", [b"250 injected\r\n", b"250-inj", b"2"])
def test_nothing_may_be_after_the_220_of_the_server(tmp_path: Path, behind: bytes) -> None:
    heard: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b"220 mx.example\r\n")
            for line in lines:
                heard.append(line)
                if line.startswith(b"EHLO"):
                    connection.sendall(b"250-mx.example\r\n250 STARTTLS\r\n")
                elif line.startswith(b"STARTTLS"):
                    connection.sendall(b"220 go\r\n" + behind)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        rest = f"Tls: terminate\n{own_certificate(tmp_path)}FilterCommand: cat\n"
        with daemon(tmp_path, listener.getsockname()[1], rest) as running:
            thread.start()
            client = Clear(running.port)
            with client.sock:
                answer = client.ask(b"STARTTLS\r\n")
                assert answer[:1] in {b"4", b""}, answer
            thread.join(20)
    assert [line[:4].upper() for line in heard] == [b"EHLO", b"STAR"]


def test_aborts_at_each_step_leave_nothing(terminating: Daemon, server: MailServer) -> None:
    """200 clients that reset after the 220, within the hello, behind it, and behind the handshake."""
    pid = terminating.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

    def descriptors() -> int:
        return sum(len(list(Path(f"/proc/{child}/fd").iterdir())) for child in children)

    assert swaks(terminating.port, "--tls")[0] == 0
    before = descriptors()
    hello = server_leg().to_send()
    for at in range(200):
        client = Clear(terminating.port)
        if at % 4 == 3:
            client.sock = client.tls()
        else:
            assert client.ask(b"STARTTLS\r\n").startswith(b"220")
            client.sock.sendall((b"", hello[:50], hello)[at % 4])
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sock.close()
    end = time.monotonic() + 20
    while descriptors() > before and time.monotonic() < end:
        time.sleep(0.1)
    assert descriptors() <= before
    assert swaks(terminating.port, "--tls")[0] == 0
    assert len(server.messages) == 2
