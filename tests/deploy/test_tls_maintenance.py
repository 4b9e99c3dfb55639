"""TLS on a gateway with systemd: a restart with open streams, and the first upgrade, straight to `Tls` lines."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab.network import MX_V4
from tests.deploy import acceptance, documented_commands
from tests.deploy.prepare import NEXT_VERSION
from tests.deploy.test_first_upgrade import gateway
from tests.deploy.test_maintenance import CONFIG, DAEMON, END, journal, status
from tests.deploy.test_role import certificate_of, issuer, starttls_of_the_mx
from tests.unit.certificates.fixtures import make_ca

if TYPE_CHECKING:
    from pathlib import Path

    from tests.deploy.machines import Machines

__all__ = ["gateway"]  # a fixture: 2.0.0 runs there

pytestmark = pytest.mark.timeout(300)

KEYS = "/var/lib/proxsmtp-tp/gateway/tls"
READY = "/tmp/ready"
PASSED = "passed.example"
# On the sender: one session that is terminated and one that passes, both within a message until END is there, and one
# that is terminated and idle: it may send a message, too, as after a reload. What each was answered.
_STREAMS = f"""
import os, smtplib, ssl, time
def begin(name):
    link = smtplib.SMTP("{MX_V4}", 25, local_hostname="sender.example", timeout=120)
    link._host = name
    link.starttls(context=ssl._create_unverified_context())
    link.ehlo()
    return link
judged, passed, idle = begin("mx.example"), begin("{PASSED}"), begin("mx.example")
for link in (judged, passed):
    link.mail("alice@sender.example")
    link.rcpt("bob@v4.example")
    link.docmd("DATA")
    link.send(b"Subject: " + link._host.encode() + b"\\r\\n\\r\\nthe first line\\r\\n")
open("{READY}", "w").close()
while not os.path.exists("{END}"):
    time.sleep(0.2)
codes = []
for link in (judged, passed):
    link.send(b"the last line\\r\\n.\\r\\n")
    codes.append(link.getreply()[0])
idle.mail("alice@sender.example")
idle.rcpt("bob@v4.example")
codes.append(idle.data(b"Subject: idle\\r\\n\\r\\nthe only line\\r\\n")[0])
print(*codes, *[link.mail("alice@sender.example")[0] for link in (judged, passed, idle)])
"""


def upgrade(machines: Machines) -> None:
    """As docs/deployment.md says, with the libraries that the first `Tls: terminate` needs."""
    [steps] = documented_commands.blocks("deployment.md", "### By hand")
    typed = [step for step in steps if "doctor" not in step.command]
    for step in typed:
        command = step.command.replace("NEXT", NEXT_VERSION)
        machines.gateway.run("sh", "-ec", f"cd /root\n{command}")
        if "pip install" in command:
            machines.gateway.run(
                "sh", "-ec", f"/opt/proxsmtp-tp-{NEXT_VERSION}/bin/pip install -q cryptography dnspython"
            )


def test_from_2_0_0_to_tls_and_a_restart_with_open_streams(gateway: Machines, tmp_path: Path) -> None:
    """The upgrade's first start makes the CAs. A restart lets messages end, judged and passed, and an idle client send
    one; the next daemon has the same CAs.
    """
    run, sender = gateway.gateway.run, gateway.sender
    assert status(gateway)[0]["version"] == "2.0.0"
    earlier = journal(gateway).count("made a CA")  # of other tests
    with starttls_of_the_mx(gateway, make_ca(tmp_path)):
        run("sh", "-c", f"printf 'DrainTimeOut: 200\\nTls: pass name={PASSED}\\nTls: terminate\\n' >>{CONFIG}")
        upgrade(gateway)
        assert acceptance.wait_until(lambda: [each["version"] for each in status(gateway)] == [NEXT_VERSION])
        owned = run("sh", "-c", f"cd {KEYS} && stat -c '%n %U %a' . *")
        assert sorted(owned.splitlines()) == [
            ". root 755", "ca.key root 600", "ca.pem root 644", "untrusted-ca.key root 600", "untrusted-ca.pem root 644"
        ]  # fmt: skip
        before = issuer(certificate_of(gateway, MX_V4))
        assert "proxsmtp-tp" in before

        sender.run("rm", "-f", END, READY)
        with ThreadPoolExecutor() as pool:
            answers = pool.submit(sender.run, "python3", "-c", _STREAMS)
            try:
                assert acceptance.wait_until(lambda: sender.run("ls", READY, check=False) != ""), journal(gateway)
                run("systemctl", "restart", DAEMON)
                assert issuer(certificate_of(gateway, MX_V4)) == before
            finally:
                sender.run("touch", END)
            assert answers.result().split() == ["250", "250", "250", "421", "250", "421"], journal(gateway)
        assert "TLS is terminated: client_tls=" in journal(gateway)
        assert journal(gateway).count("made a CA") == earlier + 2  # one that is trusted, and the other
