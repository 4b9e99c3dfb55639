"""One instance of the daemon on a gateway of the lab, run by the commands that an administrator types.

Guarantees: a daemon counts as started when it says READY=1 (sd_notify(3)). Leaving `Instance.running` removes the rules
and ends the daemon, also after an error inside.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.lab.network import Host, LabError
from proxsmtp_tp.service import installed

if TYPE_CHECKING:
    from collections.abc import Iterator


START_SECONDS = 20.0
"""A daemon is ready in well under one second; a machine busy with other tests takes longer."""


def program(name: str = "proxsmtp-tp") -> Path:
    """The command as it is installed beside this interpreter."""
    return installed.command(name)


@dataclass
class Instance:
    """A daemon with one configuration file. `directives` become its lines, in their order."""

    host: Host
    directory: Path
    directives: Mapping[str, str]
    name: str = "gateway"
    _daemon: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.directory / f"{self.name}.conf"

    @property
    def log_file(self) -> Path:
        """What the daemon says."""
        return self.directory / f"{self.name}.log"

    @property
    def state(self) -> Path:
        """The directory for what it keeps over restarts."""
        return self.directory / f"{self.name}.state"

    @property
    def log(self) -> str:
        """What the daemon has said so far."""
        return self.log_file.read_text("utf-8", "backslashreplace") if self.log_file.exists() else ""

    def start(self) -> None:
        """Write the file and start the daemon. Raises LabError with its log if it does not become ready."""
        # A message at a filter that hangs must not outlast the time in which a host's processes have to end.
        directives = {"DrainTimeOut": "5", **self.directives}
        self.config.write_text("".join(f"{name}: {value}\n" for name, value in directives.items()))
        self.launch(program(), "serve", "-f", self.config)

    def launch(self, *command: str | Path) -> None:
        """Start the daemon by this command. Raises LabError with its log if it does not become ready."""
        address = self.directory / f"{self.name}.notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices, self.log_file.open("wb") as output:
            notices.bind(str(address))
            try:
                address.chmod(0o666)  # the daemon may have changed its user before it is ready
                environment = {"NOTIFY_SOCKET": str(address), "STATE_DIRECTORY": str(self.state)}
                self._daemon = self.host.start(*command, output=output, environment=environment)
                self._await_ready(notices, self._daemon)
            finally:
                address.unlink()

    def _await_ready(self, notices: socket.socket, daemon: subprocess.Popen[bytes]) -> None:
        notices.settimeout(0.1)
        for _ in range(int(START_SECONDS / 0.1)):
            try:
                if b"READY=1" in notices.recv(4096):
                    return
            except TimeoutError:
                if daemon.poll() is not None:
                    raise LabError(f"proxsmtp-tp serve ended with {daemon.returncode}:\n{self.log}") from None
        raise LabError(f"proxsmtp-tp serve is not ready after {START_SECONDS:g} s:\n{self.log}")

    def wait_log(self, text: str, start: int = 0, seconds: float = START_SECONDS) -> bool:
        """Wait until the log says `text` after its first `start` characters; False if it does not."""
        end = time.monotonic() + seconds
        while text not in self.log[start:]:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def stop(self) -> None:
        """End the daemon by TERM. Raises LabError with its log if its exit status is not 0."""
        if self._daemon is not None:
            status = self.host.stop(self._daemon)
            self._daemon = None
            if status != 0:
                raise LabError(f"proxsmtp-tp serve ended with {status}:\n{self.log}")

    def command(self, subcommand: str, *options: str) -> str:
        """Run a subcommand with this configuration file; what it printed. Raises LabError if it fails."""
        done = self.host.run(program(), subcommand, "-f", self.config, *options)
        return (done.stdout + done.stderr).strip()

    @contextmanager
    def running(self) -> Iterator[Instance]:
        """The daemon started and the rules in place; neither afterwards."""
        self.start()
        try:
            self.command("install-rules")
            try:
                yield self
            finally:
                self.command("remove-rules")
        finally:
            self.stop()


# The commands that show whether a host is as before. nf_conntrack_count changes by itself.
_QUESTIONS = {
    "nft list ruleset": ("nft", "list", "ruleset"),
    "ip -4 rule": ("ip", "-4", "rule"),
    "ip -6 rule": ("ip", "-6", "rule"),
    "ip -4 route show table all": ("ip", "-4", "route", "show", "table", "all"),
    "ip -6 route show table all": ("ip", "-6", "route", "show", "table", "all"),
    "sysctl net": (
        "sh",
        "-c",
        "find /proc/sys/net -type f ! -name nf_conntrack_count -exec grep -sH . {} + | sort",
    ),
}
_MODULE_SETTINGS = ("/proc/sys/net/netfilter/", "/proc/sys/net/nf_conntrack_max:")


def host_state(host: Host) -> dict[str, list[str]]:
    """What can be seen of a host's firewall, policy routing and network settings, by the command that shows it."""
    return {question: host.run(*command).stdout.splitlines() for question, command in _QUESTIONS.items()}


def changes(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> list[str]:
    """What differs, one line each: "+ ..." for what is new, "- ..." for what is gone; empty if nothing does.

    Settings of a kernel module that was loaded for the first rule do not count.
    """
    known = {line.partition(":")[0] for lines in before.values() for line in lines}
    return [
        f"{question}: {sign} {line}"
        for question in before
        for sign, here, there in (("+", after, before), ("-", before, after))
        for line in (Counter(here[question]) - Counter(there[question])).elements()
        if not (line.startswith(_MODULE_SETTINGS) and line.partition(":")[0] not in known)
    ]
