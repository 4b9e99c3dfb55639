"""Limits of a client, locks and `explain` with the real daemon, rules and two workers; one daemon for all of it."""

from __future__ import annotations

import json
import re
import socket
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.gateway.daemon_host import DaemonHost
from tests.gateway.network import CLIENT, SERVER, family, open_socket
from tests.gateway.rules_host import within

if TYPE_CHECKING:
    from collections.abc import Iterator

BAD = "bad@mx.example"
LIMITS = {
    "Workers": "2",
    "TransparentProxy": "client",
    "ClientMessages": "4/1d",
    "ClientRejects": "2/1d",
    "ClientServers": "9/1d shadow",
    "LockOn": "ClientRejects",
    "LockDuration": "1h",
    "LockCommand": 'echo "$CLIENT $REASON $LIMIT" >>"$STATE_DIRECTORY/ran"',
}
MAIL = "MAIL FROM:<a@client.example>"
RCPT = "RCPT TO:<b@mx.example>"
EHLO = "EHLO client.example"


class Server:
    """Accepts everything but BAD, on both addresses."""

    def __init__(self, name: str) -> None:
        self._listening = []
        for address in SERVER.values():
            sock = open_socket(name, family(address))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, 25))
            sock.listen(16)
            self._listening.append(sock)
            threading.Thread(target=self._accept, args=(sock,), daemon=True).start()

    def _accept(self, sock: socket.socket) -> None:
        while True:
            try:
                peer, _ = sock.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with closing(peer), suppress(OSError), peer.makefile("rwb") as file:
            file.write(b"220 mx ESMTP\r\n")
            file.flush()
            text = False
            for line in file:
                verb = line[:4].upper()
                if text and line != b".\r\n":
                    continue
                text = verb == b"DATA"
                reply = {b"QUIT": b"221 bye", b"DATA": b"354 go"}.get(verb, b"250 ok")
                file.write((b"550 5.1.1 unknown" if BAD.encode() in line else reply) + b"\r\n")
                file.flush()
                if verb == b"QUIT":
                    return

    def close(self) -> None:
        for sock in self._listening:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


class Client:
    """A connection of a client, line by line."""

    def __init__(self, name: str, version: int = 4) -> None:
        self._socket = open_socket(name, family(SERVER[version]))
        self._socket.settimeout(20)
        self._socket.bind((CLIENT[version], 0))
        self._socket.connect((SERVER[version], 25))
        self._file = self._socket.makefile("rwb")
        self.greeting = self.reply()

    def reply(self) -> str:
        """The next reply's last line."""
        line = self._file.readline()
        while line[3:4] == b"-":
            line = self._file.readline()
        return line.decode().strip()

    def ask(self, line: str) -> str:
        self._file.write(line.encode() + b"\r\n")
        self._file.flush()
        return self.reply()

    def close(self) -> None:
        self._file.close()
        self._socket.close()


class Gateway:
    """The host, and what is typed on it."""

    def __init__(self) -> None:
        self.host = DaemonHost(**LIMITS)
        self.server = Server(self.host.net.server)

    def command(self, name: str, *arguments: str) -> dict[str, Any]:
        """A command with --json."""
        answer = json.loads(self.host.instance.command(name, "--json", *arguments))
        assert isinstance(answer, dict)
        return answer

    def client(self, version: int = 4) -> Client:
        return Client(self.host.net.client, version)

    def say(self, *lines: str, version: int = 4) -> list[str]:
        """The replies to these lines; the greeting is the first."""
        with closing(self.client(version)) as client:
            return [client.greeting, *(client.ask(line) for line in lines if client.greeting[:3] == "220")]

    def explained(self, version: int = 4) -> dict[str, Any]:
        return self.command("explain", CLIENT[version], SERVER[version])

    def used(self, limit: str = "ClientMessages") -> int:
        rows = {row["limit"]: row["used"] for row in self.command("limits", "show", CLIENT[4])["limits"]}
        return int(rows[limit])

    def connections(self) -> int:
        return int(self.command("limits", "show", CLIENT[4])["connections"])

    def close(self) -> None:
        self.server.close()
        self.host.close()


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    made = Gateway()
    yield made
    made.close()


def plain(reply: str) -> str:
    """A reply without its id, and without its seconds, which become fewer."""
    return re.sub(r"try again in \d+ s", "try again in N s", re.sub(r" \([0-9A-Z]{13}\)$", "", reply))


# In this order: each one goes on from what the one before has left.


def test_explain_says_what_happens_before_a_limit_is_reached(gateway: Gateway) -> None:
    told = gateway.explained()
    assert told["running"]
    assert told["rules"] == {"intercepted": True, "refused": False, "why": "if it comes in by lan0 (RuleInterface)"}
    assert told["answers"] == {"connection": "", "MAIL": "", "RCPT": "", "DATA": ""}
    assert told["filter"]["type"] == "pipe"
    heard = gateway.say(EHLO, MAIL, RCPT, "DATA")
    assert heard == ["220 mx ESMTP", "250 ok", "250 ok", "250 ok", "354 Start mail input; end with <CRLF>.<CRLF>"]
    assert gateway.used() == 1


def test_both_workers_count_together_and_explain_names_the_answer(gateway: Gateway) -> None:
    for _ in range(3):
        assert gateway.say(EHLO, MAIL)[-1] == "250 ok"
    told = gateway.explained()
    real = gateway.say(EHLO, MAIL)[-1]
    assert real.startswith("450 4.7.1 Too many messages from your address (ClientMessages), try again in ")
    assert plain(told["answers"]["MAIL"]) == plain(real)
    assert gateway.used() == 4
    assert "ClientMessages 4/1d is reached" in gateway.host.instance.log


def test_a_reload_keeps_what_was_counted_and_a_reset_forgets_it(gateway: Gateway) -> None:
    gateway.host.reload()
    assert gateway.say(EHLO, MAIL)[-1].startswith("450 4.7.1")
    gateway.command("limits", "reset", CLIENT[4])
    assert "control: limits client=192.0.2.10 reset=True: uid 0" in gateway.host.instance.log
    assert gateway.used() == 0
    assert gateway.say(EHLO, MAIL)[-1] == "250 ok"


def test_a_killed_worker_frees_the_places_of_its_clients(gateway: Gateway) -> None:
    with closing(gateway.client()) as client:
        assert client.greeting == "220 mx ESMTP"
        assert gateway.connections() == 1
        workers = json.loads(gateway.host.instance.command("status", "--json"))[0]["workers"]
        for worker in workers:
            gateway.host.run(f"kill -KILL {worker['pid']}")
        assert within(20, lambda: gateway.connections() == 0)
    assert gateway.used() == 1
    assert within(20, lambda: gateway.say(EHLO)[-1] == "250 ok")


def test_refused_recipients_lock_the_client_once(gateway: Gateway) -> None:
    with closing(gateway.client()) as client:
        heard = [client.ask(line) for line in (EHLO, MAIL, RCPT, *[f"RCPT TO:<{BAD}>"] * 2, "RCPT TO:<c@mx.example>")]
        assert heard[-3:-1] == ["550 5.1.1 unknown"] * 2
        assert heard[-1].startswith("450 4.7.1 Servers have refused too many recipients of your address (Client")
        assert within(20, lambda: bool(gateway.command("locks")["number"] == 1))
        assert client.ask("DATA").startswith("354")  # the transaction that has begun goes on
        assert client.ask("hello\r\n.") == "250 ok"
        locked = client.ask(MAIL)
        assert re.match(r"421 4\.7\.1 192\.0\.2\.10 is locked until \S+Z \(ClientRejects\) \([0-9A-Z]{13}\)$", locked)
        assert client.reply() == ""
    told = gateway.explained()
    (real,) = gateway.say()
    assert told["answers"] == {"connection": plain(real)}
    assert plain(real) == plain(locked)
    (row,) = gateway.command("locks")["locks"]
    assert (row["client"], row["reason"], row["until"] - row["since"]) == ("192.0.2.10", "ClientRejects", 3600)
    gateway.command("locks", "remove", CLIENT[4])
    gateway.command("limits", "reset", CLIENT[4])


def test_an_administrators_lock_is_in_force_at_once_for_the_whole_64(gateway: Gateway) -> None:
    gateway.command("locks", "add", "2001:db8:1::99", "--for", "1h", "--reason", "asked by phone")
    told = gateway.explained(6)
    (real,) = gateway.say(version=6)
    assert re.match(r"421 4\.7\.1 2001:db8:1::/64 is locked until \S+Z \(administrator\) \([0-9A-Z]{13}\)$", real)
    assert told["answers"] == {"connection": plain(real)}
    assert gateway.say()[0] == "220 mx ESMTP"
    (row,) = gateway.command("locks")["locks"]
    assert (row["client"], row["reason"], row["text"]) == ("2001:db8:1::/64", "administrator", "asked by phone")


def test_locks_are_kept_over_a_restart_and_a_removal_is_too(gateway: Gateway) -> None:
    before = gateway.command("locks")["locks"]
    gateway.host.restart()
    assert gateway.command("locks")["locks"] == before
    assert gateway.say(version=6)[0].startswith("421 4.7.1 2001:db8:1::/64 is locked until ")
    gateway.command("locks", "remove", "2001:db8:1::1")
    assert gateway.say(version=6)[0] == "220 mx ESMTP"
    gateway.host.restart()
    assert gateway.command("locks") == {"locks": [], "number": 0}
    ran = (gateway.host.instance.state / "ran").read_text("utf-8")
    assert ran.splitlines() == ["192.0.2.10 ClientRejects 2/1d", "2001:db8:1::/64 asked by phone "]


def test_without_a_daemon_explain_answers_for_one_that_has_just_been_started(gateway: Gateway) -> None:
    gateway.host.instance.stop()
    told = gateway.explained()
    assert not told["running"]
    assert told["answers"] == {"connection": "", "MAIL": "", "RCPT": "", "DATA": ""}
    assert told["counted"]["limits"][0]["used"] == 0
