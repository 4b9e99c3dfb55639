"""The role's whole life on one gateway, in the order in which an administrator meets it: each test goes on from the
last one's machine. Upgrades are in test_role_upgrade.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.certificates.leaf import LeafKey, mint
from proxsmtp_tp.certificates.pem import certificates_of
from proxsmtp_tp.lab.gateway import changes
from proxsmtp_tp.lab.network import MX_V4, MX_V6, SENDER_V4
from proxsmtp_tp.lab.scenario import GTUBE, Setup
from proxsmtp_tp.service.privileges import CAP_NET_RAW
from tests.deploy import acceptance
from tests.deploy.load import load
from tests.deploy.machines import Machines, variables
from tests.unit.certificates.fixtures import Ca, make_ca
from tools.deb import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(900)

EXPOSURE_MAX = 1.5
UNIT = "proxsmtp-tp@gateway.service"


@pytest.fixture(scope="module", autouse=True)
def before(machines: Machines) -> dict[str, list[str]]:
    """The gateway as it was."""
    return machines.state()


def test_check_mode_on_a_fresh_machine_shows_what_it_would_do(machines: Machines, before: dict[str, list[str]]) -> None:
    run = machines.play("--check", "--diff", **variables())
    assert run.status == 0, run.output
    assert "+RuleInterface: lan" in run.output
    assert changes(before, machines.state()) == []


def test_the_first_run_makes_a_gateway_and_the_second_changes_nothing(machines: Machines) -> None:
    """Molecule's scenario: converge, idempotence, verify."""
    run = machines.molecule()
    assert run.status == 0, run.output
    assert "idempotence: Executed: Successful" in re.sub(r"\x1b\[[0-9;]*m", "", run.output), run.output
    assert machines.gateway.run("proxsmtp-tp", "--version") == f"proxsmtp-tp {VERSION} (compiled)\n"
    acceptance.accept(machines.site, Setup("redirect", "client"))


def look_at_hardening(machines: Machines, capsys: pytest.CaptureFixture[str], mode: str, capabilities: int) -> None:
    """What systemd says of the running daemon, printed, and what the kernel lets it keep at most."""
    said = machines.gateway.run("systemd-analyze", "security", "--no-pager", UNIT)
    figure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert figure is not None, said
    with capsys.disabled():
        print(f"\nsystemd-analyze security, {mode}: {figure[1]}")
    assert float(figure[1]) <= EXPOSURE_MAX, said
    process = machines.gateway.run("systemctl", "show", "-P", "MainPID", UNIT).strip()
    status = machines.gateway.run("cat", f"/proc/{process}/status")
    found = dict(re.findall(r"^(CapBnd|NoNewPrivs):\s*(\w+)$", status, re.MULTILINE))
    assert (int(found["CapBnd"], 16), found["NoNewPrivs"]) == (capabilities, "1")


def test_the_daemon_is_hardened(machines: Machines, capsys: pytest.CaptureFixture[str]) -> None:
    look_at_hardening(machines, capsys, "client mode", 0)


def test_check_mode_shows_no_change_after_it(machines: Machines) -> None:
    run = machines.play("--check", "--diff", **variables(metrics={"gateway": "127.0.0.1:9725"}))  # as in converge.yml
    assert (run.status, run.changes) == (0, []), run.output
    assert not re.search(r"^(\+\+\+|---) ", run.output, re.MULTILINE), run.output


def test_check_mode_shows_a_difference(machines: Machines) -> None:
    run = machines.play("--check", "--diff", "--tags", "proxsmtp_tp_config", **variables(max_connections=77))
    assert run.status == 0, run.output
    assert "+MaxConnections: 77" in run.output
    assert "77" not in machines.gateway.run("cat", "/etc/proxsmtp-tp/gateway.conf")


def test_a_wrong_configuration_changes_nothing(machines: Machines) -> None:
    old = machines.gateway.run("cat", "/etc/proxsmtp-tp/gateway.conf")
    run = machines.play("--tags", "proxsmtp_tp_config", **variables(time_out=0))
    assert run.status != 0
    assert "TimeOut" in run.output
    assert machines.gateway.run("cat", "/etc/proxsmtp-tp/gateway.conf") == old


def test_a_changed_directive_is_taken_by_a_reload(machines: Machines) -> None:
    """No restart: the same master, and nobody refused."""
    master = machines.gateway.run("systemctl", "show", "-P", "MainPID", UNIT)
    with load(machines):
        run = machines.play(**variables(max_connections=77))
    assert run.status == 0, run.output
    assert {"Reload the daemons", "Reload the rules"} <= {task.partition(" : ")[2] for task in run.changes}
    (answer,) = json.loads(machines.gateway.run("proxsmtp-tp", "status", "--json"))
    assert answer["max_connections"] == 77
    assert machines.gateway.run("systemctl", "show", "-P", "MainPID", UNIT) == master


def test_keys_from_the_controller_and_cas_of_the_daemon(machines: Machines, tmp_path: Path) -> None:
    """The first `Tls: terminate` restarts the daemon, which makes its CAs; a renewed certificate is a reload."""
    ca = make_ca(tmp_path)
    folder = "/etc/proxsmtp-tp/tls"
    files = tls_files(ca)
    told = variables(
        tls=[f"pass server={MX_V4} name=none", "terminate"],
        tls_dane="terminate",
        tls_certificate=[f"{folder}/mx.pem {folder}/mx.key server={MX_V4}"],
        tls_files=files,
    )
    if not (machines.gateway.root / "etc/proxsmtp-tp/gateway.conf").exists():  # no test has run before
        machines.play(**variables())
    with starttls_of_the_mx(machines, ca):
        run = machines.play(**told)  # doctor finds nothing wrong
        assert run.status == 0, run.output
        assert "Restart daemons that cannot reload" in run.output
        assert "PRIVATE KEY" not in run.output
        said = machines.gateway.run("stat", "-c", "%n %a %U %G", folder, f"{folder}/mx.pem", f"{folder}/mx.key")
        assert [line.split()[1:] for line in said.splitlines()] == [
            [mode, "root", "proxsmtp-tp"] for mode in ("750", "640", "640")
        ]
        assert certificate_of(machines, MX_V4) in files[0]["content"]
        kept = "/var/lib/proxsmtp-tp/gateway/tls"
        said = machines.gateway.run("stat", "-c", "%a %U %G", f"{kept}/ca.key", f"{kept}/untrusted-ca.key")
        assert said.splitlines() == 2 * ["600 root root"]
        exported = machines.gateway.run("proxsmtp-tp", "tls-ca", "export")
        shown = machines.gateway.run("proxsmtp-tp", "tls-ca", "show")
        assert "/var/lib/proxsmtp-tp/gateway/tls/ca.pem" in shown
        assert exported == (machines.gateway.root / "var/lib/proxsmtp-tp/gateway/tls/ca.pem").read_text()
        minted = certificate_of(machines, MX_V6)

        told["tls_files"] = tls_files(ca)
        run = machines.play(**told)
        assert run.status == 0, run.output
        changed = {task.partition(" : ")[2] for task in run.changes}
        assert changed == {"Copy certificates and keys", "Reload the daemons"}
        assert certificate_of(machines, MX_V4) in told["tls_files"][0]["content"]

        # During an upgrade the second daemon has the CAs of the first one.
        run = machines.play(**told | {"drain_time_out": 11})
        assert run.status == 0, run.output
        journal = machines.gateway.run("journalctl", "--output=cat", "--unit=proxsmtp-tp@gateway-next")
        assert "Started" in journal
        assert "made a CA" not in journal
        assert issuer(certificate_of(machines, MX_V6)) == issuer(minted)


def tls_files(ca: Ca) -> list[dict[str, str]]:
    """A new certificate of the MX, and its key."""
    made = mint(ca.authority(), ("mx.example",), LeafKey(), dt.datetime.now(dt.UTC))
    return [{"name": "mx.pem", "content": made.chain.decode()}, {"name": "mx.key", "content": made.key.decode()}]


@contextmanager
def starttls_of_the_mx(machines: Machines, ca: Ca) -> Iterator[None]:
    """The MX offers STARTTLS, with a certificate that nobody trusts."""
    chain = machines.mx.root / "etc/postfix/mx.pem"
    chain.touch(0o600)
    chain.write_text("".join(reversed([each["content"] for each in tls_files(ca)])))
    machines.mx.run("postconf", "-e", "smtpd_tls_security_level=may", "smtpd_tls_chain_files=/etc/postfix/mx.pem")
    machines.mx.run("postfix", "reload")
    try:
        yield
    finally:
        machines.mx.run("postconf", "-e", "smtpd_tls_security_level=none")
        machines.mx.run("postfix", "reload")


def certificate_of(machines: Machines, server: str) -> str:
    """The certificate in PEM that the sender sees in a session with this server; nobody is verified."""
    script = (
        "import smtplib, ssl, sys; peer = smtplib.SMTP(sys.argv[1], 25, timeout=60);"
        "peer._host = 'mx.example'; peer.starttls(context=ssl._create_unverified_context());"
        "print(ssl.DER_cert_to_PEM_cert(peer.sock.getpeercert(True)), end=''); peer.quit()"
    )
    return machines.sender.run("python3", "-c", script, server)


def issuer(pem: str) -> str:
    """Who has signed it."""
    return str(certificates_of(pem.encode(), "pem")[0].issuer.rfc4514_string())


def test_the_rules_survive_the_firewall(machines: Machines) -> None:
    """A reload, a restart and a stop of nftables.service flush the ruleset."""
    machines.gateway.run("systemctl", "start", "nftables.service")
    machines.gateway.run("systemctl", "restart", "proxsmtp-tp-rules@gateway.service")
    for verb in ("reload", "restart", "stop"):
        machines.gateway.run("systemctl", verb, "nftables.service")
        assert acceptance.wait_until(machines.rules_in_place), f"{verb}: the rules are gone"


def test_a_killed_daemon_comes_back(machines: Machines) -> None:
    old = machines.gateway.run("systemctl", "show", "-P", "MainPID", UNIT).strip()
    machines.gateway.run("systemctl", "kill", "--kill-whom=all", "--signal=KILL", UNIT)
    assert acceptance.wait_until(
        lambda: (
            machines.gateway.run("systemctl", "is-active", UNIT, check=False).strip() == "active"
            and machines.gateway.run("systemctl", "show", "-P", "MainPID", UNIT).strip() != old
        )
    )
    acceptance.accept_queues(machines.site)


def test_the_gateway_comes_back_from_a_reboot(machines: Machines) -> None:
    machines.stop_gateway()
    machines.boot_gateway()
    acceptance.accept(machines.site, Setup("redirect", "client"))


@pytest.mark.parametrize(("mode", "method"), [("redirect", "nftables"), ("tproxy", "iptables")])
def test_full_mode(machines: Machines, mode: str, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = machines.play(**variables(transparent_proxy="full", rule_mode=mode, rule_method=method))
    assert run.status == 0, run.output
    assert ("proxsmtp" in machines.gateway.run("nft", "list", "tables")) == (method == "nftables")
    assert (":PXIN" in machines.gateway.run("iptables-legacy-save")) == (method == "iptables")
    look_at_hardening(machines, capsys, f"full mode, {mode}", 1 << CAP_NET_RAW)
    acceptance.accept(machines.site, Setup(mode, "full"))


def test_the_command_would_write_the_same_drop_in(machines: Machines) -> None:
    """install-service, for those without Ansible, gives a daemon what the role gives it."""
    script = (
        "from proxsmtp_tp.config.reader import read_config; from proxsmtp_tp.cli.service_units import daemon_drop_in;"
        "print(daemon_drop_in(read_config('/etc/proxsmtp-tp/gateway.conf')))"
    )
    ours = machines.gateway.run("/opt/proxsmtp-tp/current/bin/python", "-c", script)
    role = machines.gateway.run("cat", f"/etc/systemd/system/{UNIT}.d/10-configuration.conf")
    assert role.partition("[Service]")[2].split() == ours.partition("[Service]")[2].split()


_CLAMD = """
import os, shutil, socketserver
class Session(socketserver.StreamRequestHandler):
    def handle(self):
        command = b""
        while not command.endswith(b"\\0"):
            command += self.rfile.read(1)
        while command.endswith(b"INSTREAM\\0") and (size := int.from_bytes(self.rfile.read(4), "big")):
            self.rfile.read(size)
        self.wfile.write(b"stream: Eicar-Test FOUND\\0" if command.endswith(b"INSTREAM\\0") else b"ClamAV 1\\0")
with socketserver.ThreadingUnixStreamServer("/run/scanner", Session) as server:
    shutil.chown("/run/scanner", "root", "mail")
    os.chmod("/run/scanner", 0o660)
    server.serve_forever()
"""


def test_a_scanner_whose_socket_is_open_for_a_group_only(machines: Machines) -> None:
    """The chain and the groups are variables of the role; the daemon has a group that its user has not."""
    machines.gateway.run("systemd-run", "--unit=scanner", "python3", "-c", _CLAMD)
    run = machines.play(**variables(filter=["viruses clamd /run/scanner"], filter_command="", groups=["mail"]))
    assert run.status == 0, run.output
    said = machines.gateway.run("runuser", "-u", "proxsmtp-tp", "--", "proxsmtp-tp", "check-filters", check=False)
    assert "Permission denied" in said
    (reply,) = acceptance.send(machines.sender, [MX_V4], "bob@v4.example", "Subject: virus\r\n\r\nvirus\r\n")
    assert reply == "554 5.7.1 Virus found: Eicar-Test"
    machines.gateway.run("systemctl", "stop", "scanner")


def filtered(machines: Machines) -> bool:
    """Whether mail from the MX to the sender meets a filter; it comes in by wan. What does not has arrived then."""
    acceptance.empty(machines.sender, acceptance.MAILBOX)
    (reply,) = acceptance.send(machines.mx, [SENDER_V4], "alice@sender.example", f"Subject: back\r\n\r\n{GTUBE}\r\n")
    refused = not reply.startswith("250 ")
    assert refused or acceptance.arrived(machines.sender, acceptance.MAILBOX, 1)
    return refused


def test_a_second_instance_is_installed_fails_open_and_is_removed(machines: Machines) -> None:
    instances = {
        "gateway": {},
        "inbound": {"rule_interface": ["wan"], "listen": ["10026"], "rule_fail": "open", "drain_time_out": 1},
    }
    assert not filtered(machines)
    run = machines.play(**variables(instances=instances))
    assert run.status == 0, run.output
    assert filtered(machines)
    machines.gateway.run("systemctl", "stop", "proxsmtp-tp@inbound.service")
    assert not filtered(machines)
    machines.gateway.run("systemctl", "start", "proxsmtp-tp@inbound.service")
    assert acceptance.wait_until(lambda: filtered(machines))
    run = machines.play("--tags", "proxsmtp_tp_service,proxsmtp_tp_verify", **variables())
    assert run.status == 0, run.output
    assert not filtered(machines)
    assert "inbound" not in machines.gateway.run("find", "/etc", "/var/lib", "/var/log", "-name", "*inbound*")
    assert "10026" not in machines.gateway.run("nft", "list", "ruleset")
    acceptance.accept_queues(machines.site)


def test_absent_leaves_nothing(machines: Machines, before: dict[str, list[str]]) -> None:
    run = machines.play(state="absent")
    assert run.status == 0, run.output
    assert changes(before, machines.state()) == []
    again = machines.play(state="absent")
    assert (again.status, again.changes) == (0, []), again.output


def test_mail_passes_without_us(machines: Machines) -> None:
    for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        machines.router.sysctl(name, 1)
    acceptance.accept_direct(machines.site)
