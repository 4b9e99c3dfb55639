"""Network namespaces joined by veth pairs: any number of hosts, with addresses, routes and processes.

`Network` is the general tool; `gateway_network()` makes the network of the demo and of most tests:

    sender  eth0 ── lan  gateway  wan ── eth0  mx
    192.0.2.10      192.0.2.1   198.51.100.1   198.51.100.25
    2001:db8:1::10  2001:db8:1::1  2001:db8:2::1   2001:db8:2::25

Guarantees: nothing outside the new namespaces changes but the names in /run/netns; leaving the context ends
every process started in them and removes them. Run it under `proxsmtp_tp.lab.isolate`, so that even a kill -9
leaves nothing behind (network_namespaces(7), veth(4), ip-netns(8) for the named ones).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self, cast

from pyroute2 import IPRoute, NetNS, netns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

STOP_SECONDS = 15.0
"""A process has this long between TERM and KILL: a daemon may wait some seconds for clients to close."""
FIRST_INDEX = 1000
"""Link indices that the kernel does not choose for the other end: it counts from 1. It notices a carrier at once if the
indices of both ends differ, and once a second if they are equal by chance (net/core/link_watch.c,
linkwatch_urgent_event)."""

SENDER_V4, SENDER_V6 = "192.0.2.10", "2001:db8:1::10"
LAN_V4, LAN_V6 = "192.0.2.1", "2001:db8:1::1"
WAN_V4, WAN_V6 = "198.51.100.1", "2001:db8:2::1"
MX_V4, MX_V6 = "198.51.100.25", "2001:db8:2::25"


class LabError(Exception):
    """A part of the lab does not do what it must. The text names the part and shows what it said."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link: the host, the interface's name there, and its addresses ("192.0.2.1/24")."""

    host: Host
    interface: str
    addresses: tuple[str, ...] = ()


class Host:
    """One network namespace and the processes started in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._processes: list[subprocess.Popen[bytes]] = []

    def command(self, *arguments: str | Path) -> list[str]:
        """What to execute so that `arguments` run inside; the process id stays that of the program itself."""
        return ["nsenter", f"--net=/run/netns/{self.name}", "--", *map(str, arguments)]

    def run(
        self, *arguments: str | Path, text: str | None = None, seconds: float = 30.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end. Raises LabError with its output if it fails (and `check`), or takes longer."""
        try:
            done = subprocess.run(
                self.command(*arguments),
                input=text if text is not None else "",
                capture_output=True,
                encoding="utf-8",
                errors="backslashreplace",
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self._what(arguments)} took longer than {seconds:g} s") from error
        if check and done.returncode != 0:
            said = (done.stderr + done.stdout).strip()
            raise LabError(f"{self._what(arguments)} exited with {done.returncode}: {said}")
        return done

    def start(
        self,
        *arguments: str | Path,
        output: IO[bytes] | int = subprocess.DEVNULL,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start in the background, in a session of its own; `output` takes both its streams."""
        process = subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        """End a process by TERM, after a while by KILL with all of its group; return its exit status."""
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process in self._processes:
            self._processes.remove(process)
        return process.returncode

    def stop_all(self) -> None:
        """End every process started here, the newest first."""
        for process in reversed(self._processes.copy()):
            self.stop(process)

    def open_socket(self, family: socket.AddressFamily) -> socket.socket:
        """A new TCP socket that lives in this namespace, for use by the calling process."""
        return cast(socket.socket, netns.create_socket(self.name, family, socket.SOCK_STREAM))

    def connect(self, address: str, port: int, seconds: float = 30.0) -> socket.socket:
        """Connect from inside to an IP literal. Raises OSError; each later read or write is limited too."""
        link = self.open_socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        try:
            link.settimeout(seconds)
            link.connect((address, port))
        except OSError:
            link.close()
            raise
        return link

    def listen(self, address: str, port: int = 0) -> socket.socket:
        """A listening socket inside, on an IP literal; port 0 takes a free one."""
        listener = self.open_socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()
        return listener

    def sysctl(self, name: str, value: str | int) -> None:
        """Set a system setting of this namespace ("net.ipv4.ip_forward")."""
        path = Path("/proc/sys", *name.split("."))
        self.run("sh", "-c", 'printf %s "$2" >"$1"', "sysctl", path, str(value))

    def _what(self, arguments: tuple[str | Path, ...]) -> str:
        return f"{self.name}: {' '.join(map(str, arguments))}"


def _await_carrier(end: End) -> None:
    """Wait until the kernel sends on this link: it notices the carrier a moment after both ends are up."""
    with NetNS(end.host.name) as link:
        for _ in range(400):
            (state,) = link.get_links(ifname=end.interface)
            if state.get("operstate") == "UP":
                return
            time.sleep(0.01)
    raise LabError(f"{end.host.name}: the link {end.interface} does not come up")


class Network:
    """Hosts and the links between them. A context manager: leaving it leaves nothing."""

    def __init__(self) -> None:
        self._undo = ExitStack()
        self._indices = count(FIRST_INDEX)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def host(self, name: str) -> Host:
        """A new namespace of this name with loopback up. Raises LabError if there is one already."""
        if Path("/run/netns", name).exists():
            raise LabError(f"there is a network namespace {name} already")
        netns.create(name)
        self._undo.callback(netns.remove, name)
        host = Host(name)
        self._undo.callback(host.stop_all)
        # Makes v6 addresses usable at once: a link between two hosts of ours needs no duplicate address detection.
        host.sysctl("net.ipv6.conf.default.accept_dad", 0)
        with NetNS(name) as link:
            link.link("set", index=1, state="up")  # loopback is the first link of every namespace
        return host

    def connect(self, one: End, other: End) -> None:
        """Join two hosts by a veth pair, addresses set and usable when this returns."""
        with IPRoute() as link:
            link.link(
                "add",
                kind="veth",
                index=next(self._indices),
                ifname=one.interface,
                net_ns_fd=one.host.name,
                peer={"ifname": other.interface, "net_ns_fd": other.host.name},
            )
        for end in (one, other):
            with NetNS(end.host.name) as link:
                (index,) = link.link_lookup(ifname=end.interface)
                link.link("set", index=index, state="up")
                for address in end.addresses:
                    host, _, length = address.partition("/")
                    link.addr("add", index=index, address=host, prefixlen=int(length))
        for end in (one, other):
            _await_carrier(end)

    def route(self, host: Host, via: str, destination: str = "default") -> None:
        """Send what `host` has for `destination` (a network, or everything) to the neighbour `via`."""
        with NetNS(host.name) as link:
            target = "::/0" if destination == "default" and ":" in via else destination
            link.route("add", dst=target, gateway=via)


@dataclass(frozen=True, slots=True)
class GatewayNetwork:
    """The three hosts of the module's picture."""

    network: Network
    sender: Host
    gateway: Host
    mx: Host


@contextmanager
def gateway_network(prefix: str = "") -> Iterator[GatewayNetwork]:
    """Sender, gateway and MX, routed in v4 and v6. `prefix` before the names makes several side by side."""
    with Network() as network:
        sender, gateway, mx = (network.host(prefix + name) for name in ("sender", "gateway", "mx"))
        # A new namespace takes v4 settings from the host it is made on: say what a Debian router has.
        for name, value in (
            ("net.ipv4.ip_forward", 1),
            ("net.ipv6.conf.all.forwarding", 1),
            ("net.ipv4.conf.all.rp_filter", 2),
            ("net.ipv4.conf.default.rp_filter", 2),
        ):
            gateway.sysctl(name, value)
        network.connect(
            End(sender, "eth0", (f"{SENDER_V4}/24", f"{SENDER_V6}/64")),
            End(gateway, "lan", (f"{LAN_V4}/24", f"{LAN_V6}/64")),
        )
        network.connect(
            End(mx, "eth0", (f"{MX_V4}/24", f"{MX_V6}/64")),
            End(gateway, "wan", (f"{WAN_V4}/24", f"{WAN_V6}/64")),
        )
        # The MX knows the way back to the sender: a server must, where clients keep their addresses.
        for host, via in ((sender, LAN_V4), (sender, LAN_V6), (mx, WAN_V4), (mx, WAN_V6)):
            network.route(host, via)
        yield GatewayNetwork(network, sender, gateway, mx)
