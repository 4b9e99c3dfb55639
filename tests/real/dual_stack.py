"""Clients that send to a name with a dead IPv6 and a live IPv4 address, directly and through the gateway.

`python -m proxsmtp_tp.lab.isolate python -m tests.real.dual_stack [CLIENT..]` prints the table of docs/gateway.md, of
the clients that are installed. MORE, in the environment, names a folder with what Debian has no package for:
venv (aiosmtplib), node_modules (nodemailer, Haraka), smtp-go (a program built of `GO`).

dnsmasq answers on the sender; resolv.conf is mounted over the system's for each client (mount_namespaces(7)).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.lab.gateway import Instance
from proxsmtp_tp.lab.network import MX_V4, MX_V6, SENDER_V4, GatewayNetwork, Host, LabError, gateway_network
from tests.mta import senders
from tests.real.postfix import Postfix

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

NAME = "mail.example.net"
NO_ROUTE = "2001:db8:99::25"
KINDS = {"no route": NO_ROUTE, "no answer": MX_V6, "refused": MX_V6}
"""Ways to be dead, and the AAAA of `NAME` in each."""
SECONDS = 150.0
"""What one message may take: a client waits its own limit for a dead address first, Exim that of the kernel, 127 s."""

SMTPLIB = """
import smtplib
with smtplib.SMTP("mail.example.net", 25, timeout=20) as link:
    link.sendmail("a@example.org", ["b@example.net"], "Subject: test\\r\\n\\r\\nhello\\r\\n")
"""
AIOSMTPLIB = """
import aiosmtplib, asyncio
from email.message import EmailMessage
message = EmailMessage()
message["From"], message["To"], message["Subject"] = "a@example.org", "b@example.net", "test"
asyncio.run(aiosmtplib.send(message, hostname="mail.example.net", port=25, start_tls=False, timeout=20))
"""
NODEMAILER = """
require("nodemailer").createTransport({ host: "mail.example.net", port: 25, ignoreTLS: true, connectionTimeout: 20000 })
    .sendMail({ from: "a@example.org", to: "b@example.net", subject: "test", text: "hello" })
    .catch(error => { console.error(error.message); process.exit(1); });
"""
GO = """
package main
import ("fmt"; "net/smtp"; "os")
func main() {
    to, text := []string{"b@example.net"}, []byte("Subject: test\\r\\n\\r\\nhello\\r\\n")
    if err := smtp.SendMail("mail.example.net:25", nil, "a@example.org", to, text); err != nil {
        fmt.Println(err); os.Exit(1)
    }
}
"""
MESSAGE = "From: a@example.org\nTo: b@example.net\nSubject: test\n\nhello\n"


@dataclass
class Situation:
    """The lab with a name server, a live IPv4 server, and one way in which IPv6 is dead."""

    lab: GatewayNetwork
    folder: Path
    kind: str
    kept: dict[str, senders.Sender] = field(default_factory=dict)
    """MTAs, with what they have in their queues and remember of servers, by their names."""
    at_end: ExitStack = field(default_factory=ExitStack)

    def run(self, *command: str | Path, text: str = "", environment: Mapping[str, str] | None = None) -> str:
        """A client's program on the sender, which asks our name server. "" or the end of what it said."""
        mount = f'mount --bind {self.folder}/resolv.conf /etc/resolv.conf && exec "$@"'
        more = [f"{name}={value}" for name, value in (environment or {}).items()]
        done = self.lab.sender.run(
            "unshare",
            "--mount",
            "sh",
            "-c",
            mount,
            "sh",
            "env",
            *more,
            *command,
            text=text,
            seconds=SECONDS + 30,
            check=False,
        )
        return "" if done.returncode == 0 else ((done.stderr + done.stdout).strip().splitlines() or ["failed"])[-1]


def _postfix(situation: Situation) -> str:
    """A Postfix with a queue of its own; delivered when its queue is empty, failed when the message is deferred."""
    folder = Path(tempfile.mkdtemp(dir=situation.folder))
    folder.chmod(0o755)
    host = _WithNames(situation)
    routes = {"example.net": f"smtp:[{NAME}]:25"}
    settings = {"smtp_dns_support_level": "enabled", "minimal_backoff_time": "1h", "maximal_backoff_time": "1h"}
    postfix = Postfix.start(host, folder, "sender.example.org", (), routes, settings)
    try:
        postfix.wait_ready()
        host.run("sendmail", "-C", folder / "conf", "-f", "a@example.org", "b@example.net", text=MESSAGE)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if "status=sent" in postfix.log:
                return ""
            if "status=deferred" in postfix.log:
                break
            time.sleep(0.1)
        return ([line for line in postfix.log.splitlines() if "status=" in line] or ["no end"])[-1]
    finally:
        host.stop(postfix.process)


def _mta(name: str) -> Client:
    """One of those that exclude Postfix as a package. It keeps its queue for the next message."""

    def send(situation: Situation) -> str:
        if name not in situation.kept:
            folder = Path(tempfile.mkdtemp(dir=situation.folder))
            folder.chmod(0o755)
            if name == "Haraka":
                made: AbstractContextManager[senders.Sender] = senders.haraka(
                    _WithNames(situation), folder / "mta", more("node_modules"), SECONDS
                )
            else:
                host = Host(situation.lab.sender.name)
                made = senders.MAKE_BY_NAME[name](host, folder / "mta", situation.folder / "resolv.conf", SECONDS)
            situation.kept[name] = situation.at_end.enter_context(made)
        return situation.kept[name].send()

    return Client(send, (lambda: True) if name != "Haraka" else more("node_modules/Haraka").exists)


class _WithNames(Host):
    """The sender, for programs that ask our name server."""

    def __init__(self, situation: Situation) -> None:
        super().__init__(situation.lab.sender.name)
        self._resolv = situation.folder / "resolv.conf"

    def command(self, *arguments: str | Path) -> list[str]:
        mount = f'mount --bind {self._resolv} /etc/resolv.conf && exec "$@"'
        return super().command("unshare", "--mount", "sh", "-c", mount, "sh", *arguments)


def more(name: str) -> Path:
    """Something that Debian has no package for."""
    return Path(os.environ.get("MORE", "/nonexistent"), name)


@dataclass(frozen=True)
class Client:
    """A program that sends one message: "" or what went wrong. `there` says whether it is installed."""

    send: Callable[[Situation], str]
    there: Callable[[], bool]


CLIENTS = {
    "Postfix": Client(_postfix, lambda: shutil.which("postfix") is not None),
    "Exim": _mta("Exim"),
    "sendmail": _mta("sendmail"),
    "OpenSMTPD": _mta("OpenSMTPD"),
    "Haraka": _mta("Haraka"),
    "smtplib": Client(lambda situation: situation.run(sys.executable, "-c", SMTPLIB), lambda: True),
    "msmtp": Client(
        lambda situation: situation.run(
            "msmtp",
            "--file=/dev/null",
            "--timeout=20",
            f"--host={NAME}",
            "--from=a@example.org",
            "--",
            "b@example.net",
            text=MESSAGE,
        ),
        lambda: shutil.which("msmtp") is not None,
    ),
    "swaks": Client(
        lambda situation: situation.run(
            "swaks", "--timeout", "20", "--server", NAME, "--from", "a@example.org", "--to", "b@example.net"
        ),
        lambda: shutil.which("swaks") is not None,
    ),
    "aiosmtplib": Client(
        lambda situation: situation.run(more("venv/bin/python"), "-c", AIOSMTPLIB), lambda: more("venv").exists()
    ),
    "nodemailer": Client(
        lambda situation: situation.run("node", "-e", NODEMAILER, environment={"NODE_PATH": str(more("node_modules"))}),
        lambda: more("node_modules/nodemailer").exists(),
    ),
    "Go net/smtp": Client(lambda situation: situation.run(more("smtp-go")), lambda: more("smtp-go").exists()),
}


@contextmanager
def situation(lab: GatewayNetwork, folder: Path, kind: str) -> Iterator[Situation]:
    """IPv6 dead in this way, IPv4 alive."""
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    names = lab.sender.start(
        "dnsmasq", "--no-daemon", "--no-resolv", "--no-hosts", "--user=root", "--listen-address=127.0.0.1", "--port=53",
        f"--host-record={NAME},{MX_V4},{KINDS[kind]}", f"--mx-host=example.net,{NAME}", "--auth-ttl=60",
        f"--host-record=example.org,sender.example.org,{SENDER_V4}",
    )  # fmt: skip
    sink = lab.mx.start("smtp-sink", "-u", "nobody", f"{MX_V4}:25", "100")
    if kind == "no answer":
        lab.mx.run("nft", "add table inet dead; add chain inet dead in { type filter hook input priority 0; };"
                   " add rule inet dead in ip6 daddr " + MX_V6 + " tcp dport 25 drop")  # fmt: skip
    try:
        _await_port(lab.sender, "127.0.0.1", 53)
        _await_port(lab.mx, MX_V4, 25)
        with ExitStack() as at_end:
            yield Situation(lab, folder, kind, at_end=at_end)
    finally:
        lab.sender.stop(names)
        lab.mx.stop(sink)
        if kind == "no answer":
            lab.mx.run("nft", "delete table inet dead")


def _await_port(host: Host, address: str, port: int) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            host.connect(address, port, 5).close()
        except OSError as error:
            if time.monotonic() > end:
                raise LabError(f"{host.name}: nobody listens on {address}:{port}") from error
            time.sleep(0.05)
        else:
            return


def instance(lab: GatewayNetwork, folder: Path, **directives: str) -> Instance:
    """The gateway's daemon."""
    given = {"TransparentProxy": "client", "RuleInterface": "lan", "User": "65534", "ConnectTimeOut": "10"}
    return Instance(lab.gateway, folder, given | directives)


def _measure(client: Client, there: Situation) -> str:
    began = time.monotonic()
    try:
        wrong = client.send(there)
    except LabError as error:
        wrong = str(error)
    if wrong:
        print(f"    {there.kind}: {wrong}", file=sys.stderr)
    return f"{'sent' if not wrong else '**fails**'} {time.monotonic() - began:.1f} s"


def main(wanted: list[str]) -> None:
    """The table: the first message and the next one, for each kind and way."""
    ways: dict[str, dict[str, str] | None] = {
        "directly": None, "reply": {"ConnectFailure": "reply"}, "reset": {"ConnectFailure": "reset"}, "refuse": {},
    }  # fmt: skip
    print("| client | IPv6 |", " | ".join(ways), "|\n|---|---|" + "---|" * len(ways), flush=True)
    with gateway_network() as lab, tempfile.TemporaryDirectory(prefix="dual.") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for title, client in CLIENTS.items():
            if not client.there() or (wanted and title not in wanted):
                continue
            for kind in KINDS:
                cells = []
                for directives in ways.values():
                    with situation(lab, folder, kind) as there:
                        if directives is None:
                            cells.append(_measure(client, there))
                            continue
                        with instance(lab, folder, **directives).running():
                            cells.append(", ".join(_measure(client, there) for _ in range(2)))
                print(f"| {title} | {kind} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
