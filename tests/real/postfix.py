"""A real Postfix with its own configuration, queue and mailboxes, on one host of the lab.

postfix(1), postconf(5). Nothing of the system's Postfix is used but its programs: /etc/postfix/main.cf need
not exist, and no name server is asked. Mail for `domains` ends in one maildir; `routes` says where the rest
goes, by the recipient's domain.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.lab.network import Host, LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


MAILBOX_USER = 65534
"""Who owns the maildir: nobody, since Postfix delivers to no mailbox of root."""

MASTER = """\
smtp      inet  n - n - - smtpd
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
smtp      unix  - - n - - smtp
showq     unix  n - n - - showq
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
virtual   unix  - n n - - virtual
tlsmgr    unix  - - n 1000? 1 tlsmgr
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""


def _main(
    name: str, directory: Path, domains: tuple[str, ...], routes: Mapping[str, str], others: Mapping[str, str]
) -> str:
    """main.cf: no name server, no rewriting, no repair, nothing cut or folded, quick retries."""
    inline = " ".join(f"{{ {domain} = {route} }}" for domain, route in routes.items())
    settings = {
        "compatibility_level": "3.6",
        "queue_directory": f"{directory}/queue",
        "data_directory": f"{directory}/data",
        "maillog_file": f"{directory}/mail.log",
        "maillog_file_prefixes": f"{directory}",
        "myhostname": name,
        "mydestination": "",
        "alias_maps": "",
        "inet_interfaces": "all",
        "inet_protocols": "all",
        "mynetworks": "0.0.0.0/0 [::]/0",
        "smtpd_relay_restrictions": "permit_mynetworks, reject",
        "smtpd_peername_lookup": "no",
        "smtp_dns_support_level": "disabled",
        "transport_maps": f"inline:{{ {inline} }}" if inline else "",
        "virtual_mailbox_domains": " ".join(domains),
        "virtual_mailbox_base": f"{directory}",
        "virtual_mailbox_maps": "static:mail/",
        "virtual_uid_maps": f"static:{MAILBOX_USER}",
        "virtual_gid_maps": f"static:{MAILBOX_USER}",
        "virtual_minimum_uid": "100",
        "virtual_mailbox_limit": "0",
        "mailbox_size_limit": "0",
        "message_size_limit": "50000000",
        "smtputf8_enable": "yes",
        "local_header_rewrite_clients": "",
        "smtp_line_length_limit": "0",
        "minimal_backoff_time": "1s",
        "maximal_backoff_time": "2s",
        "queue_run_delay": "1s",
        "smtp_connect_timeout": "5s",
        "smtp_helo_timeout": "20s",
    }
    return "".join(f"{key} = {value}\n" for key, value in (settings | dict(others)).items())


@dataclass(frozen=True, slots=True)
class Postfix:
    """An instance. `start` makes it, `wait_ready` waits for it; leaving the lab's network ends it."""

    host: Host
    directory: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(
        cls,
        host: Host,
        directory: Path,
        name: str,
        domains: tuple[str, ...],
        routes: Mapping[str, str],
        others: Mapping[str, str] | None = None,
        services: str = "",
    ) -> Postfix:
        """Start in an empty directory that everybody may enter, with `others` among its settings.

        `services`: more lines of master.cf.

        It takes mail a few seconds later.
        """
        assert os.getuid() == 0, "Postfix changes users: run this as root"
        for part in ("conf", "queue", "data", "mail"):
            (directory / part).mkdir()
        owner = pwd.getpwnam("postfix")
        os.chown(directory / "data", owner.pw_uid, owner.pw_gid)
        os.chown(directory / "mail", MAILBOX_USER, MAILBOX_USER)
        (directory / "conf/main.cf").write_text(_main(name, directory, domains, routes, others or {}))
        (directory / "conf/master.cf").write_text(MASTER + services)
        (directory / "conf/dynamicmaps.cf").touch()
        process = host.start("postfix", "-c", directory / "conf", "start-fg")
        return cls(host, directory, process)

    def wait_ready(self) -> None:
        """Until it takes mail. Raises LabError with the log if it does not."""
        self._await(self._answers, 20, "does not start")

    @property
    def log(self) -> str:
        """The mail log so far."""
        path = self.directory / "mail.log"
        return path.read_text(errors="backslashreplace") if path.exists() else ""

    def mailbox(self) -> list[Path]:
        """The files of all delivered messages; line ends in them are LF, as in every maildir."""
        new = self.directory / "mail/new"
        return list(new.iterdir()) if new.exists() else []

    def empty_mailbox(self) -> None:
        """Forget what was delivered."""
        for file in self.mailbox():
            file.unlink()

    def wait_mailbox(self, count: int, seconds: float) -> None:
        """Until at least so many messages were delivered. Raises LabError with the end of the log."""
        self._await(lambda: len(self.mailbox()) >= count, seconds, f"has not {count} messages")

    def queue(self) -> list[str]:
        """The ids of the messages that wait in any queue."""
        return [
            file.name
            for name in ("incoming", "active", "deferred", "maildrop")
            for file in (self.directory / "queue" / name).rglob("*")
            if file.is_file()
        ]

    def flush(self) -> None:
        """Try all that waits at once, also to servers that failed (postqueue(1))."""
        self.host.run("postqueue", "-c", self.directory / "conf", "-f")

    def empty_queue(self) -> None:
        """Forget all that waits (postsuper(1))."""
        self.host.run("postsuper", "-c", self.directory / "conf", "-d", "ALL")

    def wait_log(self, text: str, count: int, seconds: float) -> None:
        """Until the log has this text so often. Raises LabError with the end of the log."""
        self._await(lambda: self.log.count(text) >= count, seconds, f"does not say {text!r} {count} times")

    def wait_idle(self, seconds: float) -> None:
        """Until nothing waits any more. Raises LabError with the end of the log."""
        self._await(lambda: not self.queue(), seconds, "still has mail in its queue")

    def wait_parted(self, seconds: float) -> None:
        """Until no connection is kept for more mail (smtp_connection_cache_on_demand): rules to come would miss it."""
        kept = ("ss", "--no-header", "--tcp", "state", "established", "dport = :25")
        self._await(lambda: not self.host.run(*kept).stdout, seconds, "keeps its connections")

    def _answers(self) -> bool:
        try:
            with self.host.connect("127.0.0.1", 25, 5) as link:
                greeting: bytes = link.recv(4)
        except OSError:
            return False
        return greeting == b"220 "

    def _await(self, what: Callable[[], bool], seconds: float, trouble: str) -> None:
        end = time.monotonic() + seconds
        while not what():
            if time.monotonic() > end or self.process.poll() is not None:
                deferred = [line for line in self.log.splitlines() if "deferred" in line or "warning" in line]
                told = "\n".join(deferred[-10:])
                raise LabError(
                    f"Postfix on {self.host.name} {trouble}:\n{self.log[-4000:]}\ndeferred, or warned of:\n{told}"
                )
            time.sleep(0.05)
