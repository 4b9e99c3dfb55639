"""Migration and back, as docs/migration.md describes it: Debian's command line, one file, one pid file.

The daemons are started as the unit of Debian's package starts them (Type=forking), with /etc/proxsmtp and /run of the
test mounted where the command line expects them.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conformance.harness.daemon import CLIENT, ENVIRONMENT, STOP_LIMIT, exists, free_port, program, wait_for
from tests.conformance.harness.mail import FILTER, MESSAGES, Taken, deliver, sink
from tests.conformance.harness.peer import LIMIT, Peer
from tests.conformance.harness.script import Side

if TYPE_CHECKING:
    from collections.abc import Iterator

UNIT = Path("/lib/systemd/system/proxsmtp@.service")
UNIT_COMMAND = "/usr/sbin/proxsmtpd -f /etc/proxsmtp/%I.conf -p /run/proxsmtp/%i.pid"
"""ExecStart of that unit."""

MOUNTED = """\
set -e
mount --bind "$1/etc" /etc/proxsmtp
mount --bind "$1/run" /run
shift
exec "$@"
"""

# Debian's sample, with what an administrator fills in.
CONFIGURATION = """\
# ------------------------------------------------------------------------------
#                        SAMPLE PROXSMTPD CONFIG FILE
# ------------------------------------------------------------------------------

# The address to send scanned mail to.
OutAddress: 127.0.0.3:{out}

FilterCommand: /bin/sh {directory}/filter.sh
FilterTimeout: 10
FilterType: pipe
MaxConnections: 64
TimeOut: 180
Header: X-Filtered: By ProxSMTP
KeepAlives: 0
XClient: off
Listen: 127.0.0.1:{port}
TempDirectory: {directory}/temp
TransparentProxy: off
"""


class Site:
    """A machine with Debian's package configured: one instance, its server, its clients."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.chmod(0o755)
        for name in ("etc", "run/proxsmtp", "temp"):
            (directory / name).mkdir(parents=True)
        self.server = socket.create_server(("127.0.0.3", 0))
        self.port = free_port()
        self.configuration = directory / "etc/mail.conf"
        text = CONFIGURATION.format(out=self.server.getsockname()[1], port=self.port, directory=directory)
        self.configuration.write_text(text, "ascii")
        (directory / "filter.sh").write_text(FILTER, "ascii")
        self.pid_file = directory / "run/proxsmtp/mail.pid"

    def pid(self) -> int | None:
        """The process that the pid file names."""
        try:
            return int(self.pid_file.read_text("ascii"))
        except (OSError, ValueError):
            return None

    @contextmanager
    def started(self, side: Side) -> Iterator[None]:
        """The unit, started and stopped by the pid file; nothing of it is left."""
        command = (
            UNIT_COMMAND.replace("/usr/sbin/proxsmtpd", str(program(side))).replace("%I", "mail").replace("%i", "mail")
        )
        namespace = ["unshare", "--mount", "/bin/sh", "-c", MOUNTED, "sh", str(self.directory)]
        done = subprocess.run(
            [*namespace, *command.split()], env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        wait_for("the pid file", self.pid)
        pid = self.pid()
        assert pid is not None
        try:
            yield
        finally:
            os.kill(pid, signal.SIGTERM)
            wait_for("the daemon to end", lambda: not exists(pid), limit=STOP_LIMIT)
        assert not self.pid_file.exists()

    def send(self, message: str) -> str:
        """One message through the daemon: the final answer."""
        return deliver(Peer(socket.create_connection(("127.0.0.1", self.port), LIMIT, (CLIENT, 0))), message)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A configured machine."""
    machine = Site(tmp_path)
    yield machine
    machine.server.close()


def test_the_command_line_is_that_of_the_unit() -> None:
    assert f"\nExecStart={UNIT_COMMAND}\n" in UNIT.read_text("ascii")


def test_check_config_has_nothing_to_say(site: Site) -> None:
    command = [
        sys.executable,
        "-c",
        "import sys; from proxsmtp_tp.cli.main import main; sys.exit(main())",
        "check-config",
    ]
    done = subprocess.run(
        [*command, "-f", str(site.configuration)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not re.search(r":[0-9]+: ", done.stdout + done.stderr)


@pytest.mark.timeout(300)
def test_there_and_back(site: Site) -> None:
    """Mail before, mail after, mail after going back: the same answers, the same bytes at the server."""
    before = site.configuration.read_bytes()
    seen: list[tuple[dict[str, str], dict[str, Taken]]] = []
    with sink(site.server) as server:
        for side in (Side.ORIGINAL, Side.OURS, Side.ORIGINAL):
            with site.started(side):
                answers = {name: site.send(message) for name, message in MESSAGES.items()}
            mark = f"Subject: [sender@client.example to rcpt@mx.example from {CLIENT} at 127.0.0.3] "
            subjects = {
                re.findall(rf"^{re.escape(mark)}(.*)\r$".encode(), taken.wire, re.MULTILINE)[0].decode(): taken
                for taken in server.messages
            }
            seen.append((answers, subjects))
            server.messages.clear()
    answers, arrived = seen[0]
    assert answers == dict.fromkeys(MESSAGES, "250 Ok") | {
        "spam": "550 Content Rejected: We do not like spam",
        "dropped": "250 Thank you",
    }
    assert set(arrived) == {"plain", "no body", "long", "umlauts", "dots", "large"}
    assert all(b"\r\nX-Filtered: By ProxSMTP\r\n\r\n" in taken.wire for taken in arrived.values())
    assert seen[1] == seen[0]
    assert seen[2] == seen[0]
    assert site.configuration.read_bytes() == before
    assert list((site.directory / "temp").iterdir()) == []
