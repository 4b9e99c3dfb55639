"""A real Exim with its own root, configuration and mailbox, on one host of the lab (Exim's specification, chapter 14).

Debian's exim4 and postfix exclude each other as packages: Exim runs in a chroot that `.ci/mta-root` made.
"""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from proxsmtp_tp.lab.network import Host, LabError
from tests.mta import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


USER = 301
"""Debian-exim, in the chroot's /etc/passwd."""
SECONDS = 90.0
"""For a start, and for a delivery on a busy machine."""

CONFIGURATION = """\
primary_hostname = {name}
log_file_path = /var/log/exim4/%slog
log_selector = +pipelining
acl_smtp_rcpt = accept
host_lookup =
rfc1413_hosts =
disable_ipv6 = true
keep_environment =
tls_advertise_hosts =
pipelining_connect_advertise_hosts = *
begin routers
all:
{router}
begin transports
out:
{transport}
begin retry
* * F,1h,1s
"""
SERVER = (
    "driver = accept\ntransport = out",
    "driver = appendfile\ndirectory = /var/mail/box\nmaildir_format\nuser = mail",
)
CLIENT = (
    "driver = manualroute\nroute_list = * {relay} byname\ntransport = out",
    "driver = smtp\nhosts_pipe_connect = *",
)


@dataclass(frozen=True, slots=True)
class Exim:
    """It takes mail for everybody into one maildir, or sends all to one relay."""

    host: Host
    root: Path

    @classmethod
    @contextmanager
    def made(cls, host: Host, folder: Path, relay: str = "") -> Iterator[Self]:
        """Make its root in this folder, which everybody may enter. MtaError where `.ci/mta-root` was not run."""
        folder.mkdir()
        root = servers._chroot(folder, f"{host.name}.example")
        router, transport = CLIENT if relay else SERVER
        (root / "etc/exim4").mkdir(exist_ok=True)
        (root / "etc/exim4/exim4.conf").write_text(
            CONFIGURATION.format(name=f"{host.name}.example", router=router.format(relay=relay), transport=transport)
        )
        for part in ("var/spool/exim4", "var/log/exim4", "run/exim4"):
            (root / part).mkdir(parents=True, exist_ok=True)
            os.chown(root / part, USER, USER)
        (root / "var/mail/box").mkdir(parents=True)
        os.chown(root / "var/mail/box", 8, 8)
        try:
            yield cls(host, root)
        finally:
            host.stop_all()
            subprocess.run(["umount", "--recursive", root], check=True)  # not lazily: what is under it is the host's

    def run(self, *arguments: str, text: str = "") -> None:
        """Run the program to its end."""
        self.host.run("chroot", self.root, "/usr/sbin/exim4", *arguments, text=text)

    def start(self) -> None:
        """Start the daemon, and wait until it greets."""
        self.host.start("chroot", self.root, "/usr/sbin/exim4", "-bdf")
        self._await(self._greets, "does not greet")

    def send(self, name: str) -> None:
        """Hand it a message, and wait until it was tried once."""
        self.run("-odi", "-f", "a@sender.example", "b@mx.example", text=f"Subject: {name}\n\n{name}\n")

    def wait_mailbox(self, count: int) -> None:
        """Until so many messages have arrived. Raises LabError with the log."""
        self._await(lambda: self.messages() >= count, f"has not {count} messages")

    def messages(self) -> int:
        """How many have arrived."""
        return len(list((self.root / "var/mail/box").glob("new/*")))

    @property
    def log(self) -> str:
        """What it has logged of mail."""
        path = self.root / "var/log/exim4/mainlog"
        return path.read_text(errors="backslashreplace") if path.exists() else ""

    def _await(self, what: Callable[[], bool], trouble: str) -> None:
        end = time.monotonic() + SECONDS
        while not what():
            if time.monotonic() > end:
                raise LabError(f"Exim on {self.host.name} {trouble}:\n{self.log}")
            time.sleep(0.05)

    def _greets(self) -> bool:
        try:
            with self.host.connect("127.0.0.1", 25, 5) as link:
                greeting: bytes = link.recv(4)
        except OSError:
            return False
        return greeting == b"220 "
