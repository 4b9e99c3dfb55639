"""The acceptance test of a gateway, for the lab's namespaces, containers, and Vagrant.

Nothing here knows how the machines are made: a `Machine` runs commands, a `Site` is three of them with a Postfix on
sender and MX (vagrant/mail-server, or the lab's own). Everything is seen from outside the gateway: what the client is
told, what arrives, and from which address.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from proxsmtp_tp.lab.scenario import GTUBE, MAILS, RECIPIENT, SENDER, WAYS, Mail, Setup

if TYPE_CHECKING:
    from collections.abc import Callable

MAILBOX = "/var/mail/boxes/all/new"
WAIT_SECONDS = 60.0
"""For a mail to come out of a queue: Postfix retries every other second."""
DOMAINS = {"IPv4": "v4.example", "IPv6": "v6.example"}

# Runs on the sender with nothing but Debian's Python. What it is told comes on standard input, what it saw goes out.
_CLIENT = """
import json, smtplib, sys
told = json.load(sys.stdin)
seen = []
for address in told["addresses"]:
    try:
        with smtplib.SMTP(address, 25, local_hostname="sender.example", timeout=60) as link:
            link.ehlo()
            link.mail(told["sender"])
            code, text = link.rcpt(told["recipient"])
            if code == 250:
                try:
                    code, text = link.data(told["message"].encode())
                except smtplib.SMTPDataError as error:
                    code, text = error.smtp_code, error.smtp_error
            seen.append("%d %s" % (code, text.decode().replace("\\n", " / ")))
    except OSError as error:
        seen.append("no dialogue: %r" % error)
json.dump(seen, sys.stdout)
"""


class Machine(Protocol):
    """Somewhere to run commands, as root."""

    def run(self, *command: str, text: str = "", seconds: float = ..., check: bool = ...) -> str:
        """Run to the end; its output. Raises LabError if it fails (and `check`) or takes longer."""


@dataclass(frozen=True, slots=True)
class Site:
    """The three machines, and where their Postfixes keep what arrives."""

    sender: Machine
    gateway: Machine
    mx: Machine
    sender_mailbox: str = MAILBOX
    mx_mailbox: str = MAILBOX


def accept(site: Site, setup: Setup) -> None:
    """Everything, in one way to run the gateway. Raises AssertionError with what was seen."""
    for mail in MAILS:
        accept_dialogue(site, setup, mail)
    accept_queues(site)


def accept_dialogue(site: Site, setup: Setup, mail: Mail) -> None:
    """One mail by each IP version, the client being told what the filter says, the MX getting what it should."""
    empty(site.mx, site.mx_mailbox)
    recipients = {way: RECIPIENT.replace("mx.example", DOMAINS[way.name]) for way in WAYS}
    for way in WAYS:
        (reply,) = send(site.sender, [way.server], recipients[way], mail.octets.decode())
        assert reply == mail.reply if mail.reply else reply.startswith("250 "), f"{mail.title}, {way.name}: {reply}"
    if mail.verdict != "pass":
        # What comes after it has arrived, so it would have, too.
        send(site.sender, [way.server for way in WAYS], "bob@v4.example", "Subject: next\r\n\r\nnext\r\n")
        messages = arrived(site.mx, site.mx_mailbox, len(WAYS))
        assert [message.endswith("\nnext\n") for message in messages] == [True] * len(WAYS), messages
        return
    messages = arrived(site.mx, site.mx_mailbox, len(WAYS))
    assert len(messages) == len(WAYS), f"{mail.title}: {len(messages)} arrived, not {len(WAYS)}"
    for way in WAYS:
        (message,) = (text for text in messages if f"X-Original-To: {recipients[way]}\n" in text)
        assert f"{mail.mark(way)}\n" in message, f"{way.name}: not marked by the filter:\n{message}"
        assert f"[{_literal(setup.seen(way))}])" in message, f"{way.name}: not from {setup.seen(way)}:\n{message}"
        sent = mail.octets.decode().replace("\r\n", "\n")
        assert message.endswith(sent), f"{way.name}: changed on the way:\n{message}"


def accept_queues(site: Site) -> None:
    """A real Postfix sends: what is good arrives, what is refused comes back with the filter's words."""
    empty(site.mx, site.mx_mailbox)
    empty(site.sender, site.sender_mailbox)
    for name, domain in DOMAINS.items():
        for text in (f"Subject: {name}\r\n\r\ngood\r\n", f"Subject: {name}\r\n\r\n{GTUBE}\r\n"):
            (reply,) = send(site.sender, ["127.0.0.1"], f"bob@{domain}", text)
            assert reply.startswith("250 "), reply
    bounces = arrived(site.sender, site.sender_mailbox, len(DOMAINS))
    assert len(bounces) == len(DOMAINS), bounces
    refusal = next(mail.reply for mail in MAILS if mail.verdict == "reject")
    for bounce in bounces:
        assert refusal.split(" ", 2)[2] in " ".join(bounce.split()), bounce
    messages = arrived(site.mx, site.mx_mailbox, len(DOMAINS))
    assert len(messages) == len(DOMAINS), messages
    assert all("\nX-Filter: passed;" in message and message.endswith("\ngood\n") for message in messages), messages


def accept_direct(site: Site) -> None:
    """Without rules on the gateway: mail passes, and no filter has seen it."""
    empty(site.mx, site.mx_mailbox)
    replies = send(site.sender, [way.server for way in WAYS], "bob@v4.example", f"Subject: direct\r\n\r\n{GTUBE}\r\n")
    assert [reply[:4] for reply in replies] == ["250 "] * len(WAYS), replies
    messages = arrived(site.mx, site.mx_mailbox, len(WAYS))
    assert len(messages) == len(WAYS), messages
    assert not any("X-Filter" in message for message in messages), messages


def send(machine: Machine, addresses: list[str], recipient: str, message: str) -> list[str]:
    """One mail to each of the addresses, port 25; what the client was told last in each dialogue."""
    told = {"addresses": addresses, "sender": SENDER, "recipient": recipient, "message": message}
    seen: list[str] = json.loads(machine.run("python3", "-c", _CLIENT, text=json.dumps(told)))
    return seen


def empty(machine: Machine, mailbox: str) -> None:
    """Delete what has arrived."""
    machine.run("sh", "-c", f"find {mailbox} -type f -delete 2>/dev/null || :")


def arrived(machine: Machine, mailbox: str, least: int) -> list[str]:
    """Every message, once at least so many are there, or nothing more may come. The line ends are LF."""
    script = f'for f in {mailbox}/*; do [ ! -f "$f" ] || {{ cat "$f"; printf "\\0"; }}; done'
    messages: list[str] = []

    def enough() -> bool:
        messages[:] = machine.run("sh", "-c", script).split("\0")[:-1]
        return len(messages) >= least

    wait_until(enough)
    return messages


def wait_until(true: Callable[[], bool]) -> bool:
    """Whether it becomes true in time."""
    end = time.monotonic() + WAIT_SECONDS
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def _literal(address: str) -> str:
    """As a Received header shows it."""
    return f"IPv6:{address}" if ":" in address else address
