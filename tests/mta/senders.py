"""Exim, sendmail and OpenSMTPD as senders: each looks up the MX of a recipient's domain, with Debian's defaults.

Each has its own chroot of what `.ci/mta-root` made (tests/mta/servers.py), its own queue, and no server but, for
OpenSMTPD, what it needs to accept a message. `Sender.send` hands over one message and has the whole queue tried once.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.lab.network import Host
from tests.mta import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


FROM, TO = "a@example.org", "b@example.net"
MESSAGE = f"From: {FROM}\nTo: {TO}\nSubject: test\n\nhello\n"
CONNECT_SECONDS = 20
"""What a sender waits for an address that does not answer; the defaults are minutes."""
OPENSMTPQ = 303
"""The group of smtpctl, in the chroot's /etc/group."""

EXIM = f"""\
primary_hostname = sender.example.org
log_file_path = /var/log/exim4/%slog
keep_environment =
begin routers
mx:
  driver = dnslookup
  transport = out
begin transports
out:
  driver = smtp
  connect_timeout = {CONNECT_SECONDS}s
begin retry
* * F,2h,15m; G,16h,1h,1.5; F,4d,6h
"""
SENDMAIL = f"""\
include(`/usr/share/sendmail/cf/m4/cf.m4')
OSTYPE(`debian')
define(`confDOMAIN_NAME', `sender.example.org')
define(`confDONT_PROBE_INTERFACES', `True')
define(`confTO_CONNECT', `{CONNECT_SECONDS}s')
define(`confTO_ICONNECT', `{CONNECT_SECONDS}s')
undefine(`confHOST_STATUS_DIRECTORY')
FEATURE(`nocanonify')
FEATURE(`accept_unresolvable_domains')
MAILER(`smtp')
"""
OPENSMTPD = """\
listen on 127.0.0.1 port 25
action "out" relay helo sender.example.org
match from any for any action "out"
"""

HARAKA = {
    "smtp.ini": "listen=127.0.0.1:25\nnodes=0\n",
    "plugins": "take_all\n",
    "me": "sender.example.org\n",
    "outbound.ini": f"connect_timeout={CONNECT_SECONDS}\ntemp_fail_intervals=5s*99\n",
    "log.ini": "[main]\nlevel=info\n",
}
TAKE_ALL = "exports.hook_rcpt = (next, connection) => { connection.relaying = true; next(OK); };\n"
HAND_OVER = f"""\
import smtplib
with smtplib.SMTP("127.0.0.1", 25, timeout=20) as link:
    link.sendmail("{FROM}", ["{TO}"], {MESSAGE!r})
"""


@dataclass
class Sender(ABC):
    """One MTA with a queue. `seconds` limits what one try may take."""

    host: Host
    root: Path
    seconds: float
    sent: int = field(default=0, init=False)

    @abstractmethod
    def send(self) -> str:
        """Hand over a message, and have all that waits tried once: "" when nothing waits any more, or what is told."""

    def run(self, *arguments: str, group: int = 0, text: str = "") -> str:
        """A program of the chroot, to its end: what it said. `group` stands for a set-group-ID bit."""
        done = self.host.run(
            "chroot", f"--userspec=0:{group}", self.root, *arguments, text=text, seconds=self.seconds, check=False
        )
        return done.stdout + done.stderr


class Exim(Sender):
    """Its retry times are passed over (-qf), as if they were reached."""

    def send(self) -> str:
        self.run("/usr/sbin/exim4", "-odq", "-f", FROM, TO, text=MESSAGE)
        self.run("/usr/sbin/exim4", "-qf")
        log = (self.root / "var/log/exim4/mainlog").read_text(errors="backslashreplace")
        waits = list((self.root / "var/spool/exim4/input").rglob("*-H"))
        self.sent += 1
        return "" if not waits and log.count(f" => {TO}") == self.sent else log.strip().splitlines()[-1]


class Sendmail(Sender):
    """What a queue run says goes to the terminal (-v)."""

    def send(self) -> str:
        program = "/usr/libexec/sendmail/sendmail"
        said = self.run(program, "-Am", "-odq", "-f", FROM, TO, text=MESSAGE) + self.run(program, "-Am", "-v", "-qf")
        waits = [file for file in (self.root / "var/spool/mqueue").rglob("*") if file.name.startswith(("qf", "hf"))]
        return "" if not waits and "... Sent (" in said else said.strip().splitlines()[-1]


class OpenSmtpd(Sender):
    """It tries at once what it is given; `smtpctl schedule all` has the rest tried."""

    def send(self) -> str:
        before = len(self.log)
        if self.sent:
            self.run("/usr/sbin/smtpctl", "schedule", "all", group=OPENSMTPQ)
        self.run("/usr/sbin/sendmail", "-f", FROM, TO, group=OPENSMTPQ, text=MESSAGE)
        self.sent += 1
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            told = [line for line in self.log[before:].splitlines() if " delivery " in line]
            if self.log.count("result=Ok") + self.log.count('result="Ok"') >= self.sent:
                return ""
            if any("result=TempFail" in line or 'result="TempFail"' in line for line in told):
                return told[-1]
            time.sleep(0.1)
        return f"nothing happens: {self.log[before:]}"

    @property
    def log(self) -> str:
        """What the daemon said."""
        return (self.root / "output").read_text(errors="backslashreplace")


class Haraka(Sender):
    """It tries again by itself after five seconds. `root` is its directory; it has no chroot."""

    def send(self) -> str:
        before = len(self.log)
        self.host.run(sys.executable, "-c", HAND_OVER)
        self.sent += 1
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            failed = [line for line in self.log[before:].splitlines() if "Temp failing" in line]
            if self.log.count("delivered file=") >= self.sent:
                return ""
            if failed and self.sent == 1:
                return failed[-1]
            time.sleep(0.1)
        return self.log[before:].strip().splitlines()[-1]

    @property
    def log(self) -> str:
        """What it said."""
        return (self.root / "output").read_text(errors="backslashreplace")


@contextmanager
def exim(host: Host, folder: Path, resolv_conf: Path, seconds: float) -> Iterator[Exim]:
    """Exim without a daemon."""
    with _root(folder, resolv_conf) as root:
        (root / "etc/exim4").mkdir(exist_ok=True)
        (root / "etc/exim4/exim4.conf").write_text(EXIM)
        for part in ("var/spool/exim4", "var/log/exim4", "run/exim4"):
            servers._own(root / part, 301)
        yield Exim(host, root, seconds)


@contextmanager
def sendmail(host: Host, folder: Path, resolv_conf: Path, seconds: float) -> Iterator[Sendmail]:
    """Sendmail without a daemon."""
    with _root(folder, resolv_conf) as root:
        (root / "etc/mail").mkdir(exist_ok=True)
        for part in ("var/spool/mqueue", "var/lib/sendmail", "run/sendmail/mta"):
            servers._own(root / part, 0)
        m4 = ["chroot", str(root), "/usr/bin/m4", "-D_CF_DIR_=/usr/share/sendmail/cf/"]
        made = subprocess.run(m4, input=SENDMAIL.encode(), check=True, capture_output=True)
        (root / "etc/mail/sendmail.cf").write_bytes(made.stdout)
        for file in ("local-host-names", "aliases"):
            (root / "etc/mail" / file).touch()
        yield Sendmail(host, root, seconds)


@contextmanager
def opensmtpd(host: Host, folder: Path, resolv_conf: Path, seconds: float) -> Iterator[OpenSmtpd]:
    """OpenSMTPD, which is nothing without its daemon."""
    with _root(folder, resolv_conf) as root:
        (root / "etc/smtpd.conf").write_text(OPENSMTPD)
        (root / "etc/mailname").write_text("sender.example.org\n")
        (root / "var/lib/opensmtpd/empty").mkdir(parents=True, exist_ok=True)
        (root / "var/spool/smtpd").mkdir(mode=0o711, parents=True)
        with (root / "output").open("wb") as output:
            process = host.start("chroot", root, "/usr/sbin/smtpd", "-d", output=output)
        try:
            sender = OpenSmtpd(host, root, seconds)
            _await(lambda: "uptime" in sender.run("/usr/sbin/smtpctl", "show", "stats", group=OPENSMTPQ), seconds)
            yield sender
        finally:
            host.stop(process)


@contextmanager
def haraka(host: Host, folder: Path, node_modules: Path, seconds: float) -> Iterator[Haraka]:
    """Haraka of npm; `host` gives it the resolv.conf."""
    for part in ("config", "plugins", "queue"):
        (folder / part).mkdir(parents=True)
    for name, text in HARAKA.items():
        (folder / "config" / name).write_text(text)
    (folder / "plugins/take_all.js").write_text(TAKE_ALL)
    shutil.copy(node_modules / "Haraka/config/connection.ini", folder / "config")
    with (folder / "output").open("wb") as output:
        process = host.start("node", node_modules / "Haraka/bin/haraka", "-c", folder, output=output)
    try:
        _await(lambda: "Listening on" in (folder / "output").read_text(), seconds)
        yield Haraka(host, folder, seconds)
    finally:
        host.stop(process)


MAKE_BY_NAME = {"Exim": exim, "sendmail": sendmail, "OpenSMTPD": opensmtpd}
"""Each takes the host, a folder to make that everybody may enter, the resolv.conf, and what one try may take."""


@contextmanager
def _root(folder: Path, resolv_conf: Path) -> Iterator[Path]:
    folder.mkdir()
    root = servers._chroot(folder)
    try:
        (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\nservices: files\n")
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
        shutil.copy(resolv_conf, root / "etc/resolv.conf")
        (root / "etc/resolv.conf").chmod(0o644)
        yield root
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", root], check=True)


def _await(what: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.1)
