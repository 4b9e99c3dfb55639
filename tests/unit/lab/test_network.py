"""Hosts, links, routes and processes of the lab."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from proxsmtp_tp.lab import network
from proxsmtp_tp.lab.gateway import changes, host_state
from proxsmtp_tp.lab.network import End, Host, LabError, Network, gateway_network

PREFIX = f"t{os.getpid()}"


def through(source: Host, destination: Host, address: str) -> tuple[str, int]:
    """Send a megabyte from one host to an address of another; the peer that was seen, the octets that came."""
    with destination.listen(address) as listener, source.connect(address, listener.getsockname()[1], 10) as link:
        listener.settimeout(10)
        accepted, peer = listener.accept()
        count = 0
        with accepted:
            accepted.settimeout(10)
            for _ in range(16):
                link.sendall(bytes(65536))
                wanted = count + 65536
                while count < wanted:
                    count += len(accepted.recv(65536))
    return peer[0], count


def test_both_versions_pass_the_gateway() -> None:
    with gateway_network(PREFIX) as lab:
        assert through(lab.sender, lab.mx, network.MX_V4) == (network.SENDER_V4, 1 << 20)
        assert through(lab.sender, lab.mx, network.MX_V6) == (network.SENDER_V6, 1 << 20)
        assert through(lab.mx, lab.sender, network.SENDER_V4) == (network.MX_V4, 1 << 20)
        assert through(lab.mx, lab.sender, network.SENDER_V6) == (network.MX_V6, 1 << 20)


def test_two_gateways_side_by_side() -> None:
    """A host with several links: the second way is taken where its route says so."""
    with Network() as net:
        left, right, one, two = (net.host(f"{PREFIX}{name}") for name in ("left", "right", "one", "two"))
        for number, gateway in ((1, one), (2, two)):
            gateway.sysctl("net.ipv4.ip_forward", 1)
            net.connect(
                End(left, f"eth{number}", (f"192.0.2.{number}2/29",)), End(gateway, "near", (f"192.0.2.{number}1/29",))
            )
            net.connect(
                End(right, f"eth{number}", (f"198.51.100.{number}2/29",)),
                End(gateway, "far", (f"198.51.100.{number}1/29",)),
            )
        net.route(left, "192.0.2.21", "198.51.100.16/29")
        net.route(right, "198.51.100.21", "192.0.2.16/29")
        assert through(left, right, "198.51.100.22") == ("192.0.2.22", 1 << 20)
        with pytest.raises(OSError, match="unreachable"):
            left.connect("198.51.100.12", 1)


def test_nothing_is_left() -> None:
    with gateway_network(PREFIX) as lab:
        process = lab.mx.start("sleep", "600")
        assert Path("/run/netns", f"{PREFIX}mx").exists()
    assert process.returncode == -signal.SIGTERM
    assert not list(Path("/run/netns").glob(f"{PREFIX}[a-z]*"))


def test_nothing_is_left_after_trouble() -> None:
    with suppress(ZeroDivisionError), gateway_network(PREFIX) as lab:
        process = lab.mx.start("sleep", "600")
        raise ZeroDivisionError
    assert process.returncode == -signal.SIGTERM
    assert not Path("/run/netns", f"{PREFIX}sender").exists()


def test_a_process_that_ignores_term_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(network, "STOP_SECONDS", 0.2)
    with Network() as net:
        host = net.host(PREFIX)
        up = tmp_path / "up"
        os.mkfifo(up)
        process = host.start("sh", "-c", f"trap '' TERM; echo >{up}; while :; do sleep 0.05; done")
        assert up.read_text() == "\n"
        assert host.stop(process) == -signal.SIGKILL


def test_run_reports_what_failed() -> None:
    with Network() as net:
        host = net.host(PREFIX)
        assert host.run("sh", "-c", "cat; exit 3", text="in", check=False).stdout == "in"
        with pytest.raises(LabError, match=r"sh -c echo no >&2; exit 3 exited with 3: no"):
            host.run("sh", "-c", "echo no >&2; exit 3")
        with pytest.raises(LabError, match="longer than"):
            host.run("sleep", "600", seconds=0.1)


def test_a_name_is_taken_once() -> None:
    with Network() as net:
        net.host(PREFIX)
        with pytest.raises(LabError, match=PREFIX):
            net.host(PREFIX)
    assert not Path("/run/netns", PREFIX).exists()


def test_a_host_has_its_own_settings() -> None:
    with Network() as net:
        one, other = net.host(f"{PREFIX}a"), net.host(f"{PREFIX}b")
        other.sysctl("net.ipv4.ip_default_ttl", 99)
        assert one.run("cat", "/proc/sys/net/ipv4/ip_default_ttl").stdout != "99\n"
        assert other.run("cat", "/proc/sys/net/ipv4/ip_default_ttl").stdout == "99\n"


@pytest.mark.parametrize(
    ("change", "question", "told"),
    [
        ("nft add table inet t", "nft list ruleset", "+ table inet t {"),
        ("ip rule add fwmark 1 lookup 100", "ip -4 rule", "fwmark 0x1 lookup 100"),
        ("ip -6 rule add fwmark 1 lookup 100", "ip -6 rule", "fwmark 0x1 lookup 100"),
        ("ip route add local default dev lo table 100", "ip -4 route show table all", "table 100"),
        ("ip -6 route add local default dev lo table 100", "ip -6 route show table all", "table 100"),
        ("echo 0 >/proc/sys/net/ipv4/ip_forward", "sysctl net", "- /proc/sys/net/ipv4/ip_forward:1"),
    ],
)
def test_every_change_of_a_host_is_seen(change: str, question: str, told: str) -> None:
    with gateway_network(PREFIX) as lab:
        before = host_state(lab.gateway)
        assert changes(before, host_state(lab.gateway)) == []
        lab.gateway.run("sh", "-c", change)
        found = changes(before, host_state(lab.gateway))
        assert found
        assert all(line.startswith(f"{question}: ") for line in found)
        assert any(told in line for line in found)


def test_the_process_is_the_program_itself() -> None:
    """No shell or helper stands between: the pid is that of the program, in its namespace."""
    with Network() as net:
        host = net.host(PREFIX)
        code = "import os; print(os.readlink('/proc/self/ns/net'), os.getpid())"
        inside, pid = host.run(sys.executable, "-c", code).stdout.split()
        assert inside != str(Path("/proc/self/ns/net").readlink())
        assert int(pid) > 0
