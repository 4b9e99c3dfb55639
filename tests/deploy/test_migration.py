"""docs/migration.md, "Changing over", exactly as written, on a machine with systemd: Debian's proxsmtpd 1.10 runs an
instance with a filter, ours takes it over, and gives it back. The mail, the answers and the log are compared.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab.network import LAN_V4, MX_V4
from tests.conformance.harness.mail import FILTER, MESSAGES
from tests.deploy import acceptance, manual_install
from tools.deb import TREE, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.deploy.machines import Machines

pytestmark = pytest.mark.timeout(300)

UNIT = "proxsmtp@mail.service"
CONFIGURATION = "/etc/proxsmtp/mail.conf"
PID_FILE = "/run/proxsmtp/mail.pid"
START = "a round of messages begins"
"""In the log. The time would not do: one round can begin in the second in which another ended."""
DELIVERED = len(MESSAGES) - 2  # one is refused, one discarded
# As an administrator of 1.10 has it: the sample of Debian's package, with the lines that a site fills in.
_PACKAGE = """
export DEBIAN_FRONTEND=noninteractive
apt-get install -q -y --no-install-recommends proxsmtp </dev/null
sed -e 's/^OutAddress:.*/OutAddress: {server}:25/' \\
    -e 's,^#FilterCommand:.*,FilterCommand: /bin/sh /etc/proxsmtp/filter.sh,' \\
    -e 's/^#Header:/Header:/' -e 's/^#Listen:.*/Listen: 0.0.0.0:25/' \\
    /usr/share/doc/proxsmtp/examples/proxsmtpd.conf >/etc/proxsmtp/mail.conf
cat >/etc/proxsmtp/filter.sh
systemctl enable --now proxsmtp@mail
"""
_LEAVE = """
export DEBIAN_FRONTEND=noninteractive
systemctl disable --now proxsmtp@mail
apt-get purge -q -y --autoremove proxsmtp
deluser --quiet --system _proxsmtp || userdel _proxsmtp
rm -rf /etc/proxsmtp /etc/systemd/system/proxsmtp@mail.service.d
systemctl daemon-reload
"""
_OURS = """
export DEBIAN_FRONTEND=noninteractive
apt-get install -q -y --no-install-recommends python3-venv nftables
python3 -m venv /opt/proxsmtp-tp
/opt/proxsmtp-tp/bin/pip install --quiet /root/proxsmtp_tp-VERSION-*.whl
"""


@pytest.fixture(scope="module")
def old_site(machines: Machines) -> Iterator[Machines]:
    """Debian's package, configured and running, before the migration."""
    machines.gateway.run("sh", "-ec", _PACKAGE.format(server=MX_V4), text=FILTER)
    yield machines
    machines.gateway.run("sh", "-ec", _LEAVE)


def traffic(machines: Machines) -> tuple[dict[str, str], list[str], list[str]]:
    """Each message through the instance: what the client was told, what arrived, and what the log says of it."""
    acceptance.empty(machines.mx, acceptance.MAILBOX)
    machines.gateway.run("logger", "-p", "mail.info", START)
    answers = {
        name: re.sub(
            r"queued as \w+", "queued as ID", acceptance.send(machines.sender, [LAN_V4], "bob@v4.example", text)[0]
        )
        for name, text in MESSAGES.items()
    }
    messages = acceptance.arrived(machines.mx, acceptance.MAILBOX, DELIVERED)
    acceptance.wait_until(lambda: len(logged(machines)) >= len(MESSAGES))
    return answers, sorted(message.partition("\nSubject: ")[2] for message in messages), logged(machines)


def logged(machines: Machines) -> list[str]:
    """The lines of messages since `START`, without the connection's id and what ours says beyond the line of 1.10."""
    text = machines.gateway.run("journalctl", "--facility=mail", "-o", "cat", "--no-pager").rpartition(START)[2]
    lines = [line.partition(": ")[2] for line in text.splitlines() if "status=" in line]
    return [", ".join(line.split(", ")[:4]) for line in lines]


def running(machines: Machines) -> str:
    """Which program the instance is: what the pid file, systemd and the kernel agree on."""
    pid = machines.gateway.run("cat", PID_FILE).strip()
    assert machines.gateway.run("systemctl", "show", "-P", "MainPID", UNIT).strip() == pid
    assert machines.gateway.run("systemctl", "is-active", UNIT).strip() == "active"
    user = machines.gateway.run("stat", "-c", "%U", f"/proc/{pid}").strip()
    command = machines.gateway.run("cat", f"/proc/{pid}/cmdline").split("\0")
    return f"{user}: {next(word for word in command if word.endswith('proxsmtpd'))}"


def override() -> str:
    """What docs/migration.md says to type into `systemctl edit`."""
    page = (TREE / "docs/migration.md").read_text()
    found = re.search(r"# systemctl edit proxsmtp@NAME\n(.*?) *# systemctl restart proxsmtp@NAME\n", page, re.DOTALL)
    assert found is not None
    return "\n".join(line.strip() for line in found[1].splitlines()) + "\n"


def test_there_and_back(old_site: Machines) -> None:
    gateway = old_site.gateway
    configuration = gateway.run("cat", CONFIGURATION)
    assert running(old_site) == "_proxsmtp: /usr/sbin/proxsmtpd"
    before = traffic(old_site)
    answers, messages, log = before
    assert set(answers.values()) == {
        "250 2.0.0 Ok: queued as ID", "550 Content Rejected: We do not like spam", "250 Thank you"
    }, answers  # fmt: skip
    assert len(messages) == DELIVERED
    assert all("\nX-Filtered: By ProxSMTP\n" in message for message in messages), messages
    assert len(log) == len(MESSAGES)
    with manual_install.wheels(old_site):
        gateway.run("sh", "-ec", _OURS.replace("VERSION", VERSION))
        said = gateway.run("/opt/proxsmtp-tp/bin/proxsmtp-tp", "check-config", "-f", CONFIGURATION)
        assert said.startswith(f"{CONFIGURATION}: ok\n")
        gateway.run("mkdir", "-p", f"/etc/systemd/system/{UNIT}.d")
        gateway.run("sh", "-c", f"cat >/etc/systemd/system/{UNIT}.d/override.conf", text=override())
        gateway.run("systemctl", "daemon-reload")
        gateway.run("systemctl", "restart", UNIT)
        assert running(old_site) == "_proxsmtp: /opt/proxsmtp-tp/bin/proxsmtpd"
        assert traffic(old_site) == before
        gateway.run("systemctl", "revert", UNIT)
        gateway.run("systemctl", "restart", UNIT)
    assert running(old_site) == "_proxsmtp: /usr/sbin/proxsmtpd"
    assert traffic(old_site) == before
    assert gateway.run("cat", CONFIGURATION) == configuration
