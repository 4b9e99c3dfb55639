"""A client, a gateway and a server in network namespaces of their own, for the tests of this folder.

    client  192.0.2.10, 2001:db8:1::10 --- lan0  gateway  wan0 --- 198.51.100.25, 2001:db8:2::25  server

Guarantees: nothing outside of the three namespaces is touched; `close` removes them, also when a test failed.
Sockets are opened by threads that enter a namespace (setns(2) works for one thread) and are used from anywhere.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pyroute2 import netns

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
_serial = itertools.count()

SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h, and IP6T_SO_ORIGINAL_DST
IPV6_TRANSPARENT = 75  # linux/in6.h
WAIT = 5.0  # seconds that loopback traffic may take on a busy machine before a test calls it lost

CLIENT = {4: "192.0.2.10", 6: "2001:db8:1::10"}
LAN = {4: "192.0.2.1", 6: "2001:db8:1::1"}
WAN = {4: "198.51.100.1", 6: "2001:db8:2::1"}
SERVER = {4: "198.51.100.25", 6: "2001:db8:2::25"}


def inside(name: str, function: Callable[[], _T]) -> _T:
    """Call `function` in network namespace `name`; its exception is raised here."""
    result: list[_T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            netns.setns(name)
            result.append(function())
        except BaseException as error:  # noqa: BLE001 - carried to the caller's thread
            failure.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def run(name: str, *command: str, stdin: str | None = None, check: bool = True) -> str:
    """Run a command in a namespace; its standard output. Raises AssertionError with what it said."""
    done = subprocess.run(
        ["ip", "netns", "exec", name, *command],
        input=stdin, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0 or not check, f"{command}: {done.returncode} {done.stdout} {done.stderr}"
    return done.stdout


def write_settings(name: str, *settings: str) -> None:
    """Write "ipv4/ip_forward=1" and the like, below /proc/sys/net of a namespace."""

    def write() -> None:
        for setting in settings:
            path, _, value = setting.partition("=")
            Path("/proc/sys/net", path).write_text(value)

    inside(name, write)


def _ip(name: str, *lines: str) -> None:
    """Run commands of ip(8) in a namespace, all of them in one process."""
    text = "".join(f"{line}\n" for line in lines)
    done = subprocess.run(
        ["ip", "-n", name, "-batch", "-"], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, f"{text}: {done.stderr}"


def _addresses(device: str, own: dict[int, str]) -> list[str]:
    return [
        f"addr add {own[4]}/24 dev {device}",
        f"addr add {own[6]}/64 dev {device} nodad",
        f"link set {device} up",
    ]


class Network:
    """The three namespaces. `gateway` forwards v4 and v6."""

    def __init__(self) -> None:
        stem = f"g{os.getpid()}n{next(_serial)}"
        self.client, self.gateway, self.server = (f"{stem}{letter}" for letter in "cgs")
        names = (self.client, self.gateway, self.server)
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
            # Duplicate address detection would keep v6 addresses unusable for a second.
            write_settings(name, "ipv6/conf/all/accept_dad=0", "ipv6/conf/default/accept_dad=0")
        # Where both ends have the same index, the kernel notices a carrier only once a second: see lab.network.
        links = [
            f"link add {near} index {index} type veth peer name eth0 netns {peer}"
            for near, index, peer in (("lan0", 1001, self.client), ("wan0", 1002, self.server))
        ]
        _ip(self.gateway, "link set lo up", *links, *_addresses("lan0", LAN), *_addresses("wan0", WAN))
        for name, own, near in ((self.client, CLIENT, LAN), (self.server, SERVER, WAN)):
            routes = [f"route add default via {near[4]}", f"route add ::/0 via {near[6]}"]
            _ip(name, "link set lo up", *_addresses("eth0", own), *routes)
        write_settings(
            self.gateway, "ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1",
            "ipv4/conf/all/rp_filter=0", "ipv4/conf/default/rp_filter=0",
        )  # fmt: skip

    def close(self) -> None:
        """Remove the namespaces."""
        for name in (self.client, self.gateway, self.server):
            subprocess.run(["ip", "netns", "del", name], check=False)


def family(address: str) -> socket.AddressFamily:
    """AF_INET or AF_INET6."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def open_socket(name: str, kind: socket.AddressFamily, transparent: bool = False) -> socket.socket:
    """A TCP socket of namespace `name`."""
    sock = inside(name, lambda: socket.socket(kind, socket.SOCK_STREAM))
    if transparent:
        if kind == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        sock.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
    return sock


class Listener:
    """Accepts on all addresses of a namespace, answers each connection with one line, and closes it."""

    def __init__(
        self, name: str, port: int, greet: Callable[[socket.socket], str],
        kinds: tuple[socket.AddressFamily, ...] = (socket.AF_INET, socket.AF_INET6),
        transparent: bool = False, dual: bool = False,
    ) -> None:  # fmt: skip
        self._greet = greet
        self._sockets = []
        for kind in kinds:
            sock = open_socket(name, kind, transparent)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if kind == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
            sock.bind(("::" if kind == socket.AF_INET6 else "0.0.0.0", port))
            sock.listen(64)
            self._sockets.append(sock)
        self._threads = [threading.Thread(target=self._serve, args=(s,), daemon=True) for s in self._sockets]
        for thread in self._threads:
            thread.start()

    def _serve(self, listening: socket.socket) -> None:
        while True:
            try:
                peer, _ = listening.accept()
            except OSError:
                return
            with closing(peer), suppress(OSError):
                peer.sendall(self._greet(peer).encode() + b"\r\n")

    def close(self) -> None:
        """Stop listening, as a process that dies."""
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join()


def plain(address: str) -> str:
    """An address as people write it: mapped ones as IPv4."""
    return address.removeprefix("::ffff:")


def original_destination(peer: socket.socket) -> str:
    """Where a redirected connection was going."""
    level = socket.SOL_IP if "." in peer.getsockname()[0] else socket.IPPROTO_IPV6
    raw = peer.getsockopt(level, SO_ORIGINAL_DST, 28)
    return socket.inet_ntop(socket.AF_INET, raw[4:8]) if level == socket.SOL_IP else socket.inet_ntop(
        socket.AF_INET6, raw[8:24]
    )  # fmt: skip


def greeting(name: str, address: str, port: int = 25, source: str = "", wait: float = WAIT) -> str:
    """Connect from a namespace; the line that came, or the name of what went wrong."""
    with closing(open_socket(name, family(address))) as sock:
        sock.settimeout(wait)
        if source:
            sock.bind((source, 0))
        try:
            sock.connect((address, port))
            data = b""
            while not data.endswith(b"\n") and (chunk := sock.recv(512)):
                data += chunk
        except OSError as error:
            return type(error).__name__
        return data.decode().strip() or "closed"


def server_greeting(peer: socket.socket) -> str:
    """What the server says: whom it saw."""
    return f"server saw {plain(peer.getpeername()[0])}"


def redirected_greeting(peer: socket.socket) -> str:
    """What a daemon in redirect mode says."""
    return f"daemon for {original_destination(peer)}"


def diverted_greeting(peer: socket.socket) -> str:
    """What a daemon in tproxy mode says."""
    return f"daemon for {plain(peer.getsockname()[0])}"


def relay_greeting(name: str, full: bool, diverted: bool) -> Callable[[socket.socket], str]:
    """A daemon that asks the server first, from the client's address in full mode."""

    def greet(peer: socket.socket) -> str:
        destination = plain(peer.getsockname()[0]) if diverted else original_destination(peer)
        with closing(open_socket(name, family(destination), transparent=full)) as up:
            up.settimeout(WAIT)
            if full:
                up.bind((plain(peer.getpeername()[0]), 0))
            up.connect((destination, 25))
            return f"daemon: {up.recv(512).decode().strip()}"

    return greet


def snapshot(name: str) -> dict[str, str]:
    """Everything of a host that rules could change: rulesets, policy rules, all route tables, settings."""
    seen = {
        "nft": run(name, "nft", "-s", "list", "ruleset"),
        "rule4": run(name, "ip", "-4", "rule", "show"),
        "rule6": run(name, "ip", "-6", "rule", "show"),
        "route4": run(name, "ip", "-4", "route", "show", "table", "all"),
        "route6": run(name, "ip", "-6", "route", "show", "table", "all"),
        "sysctl": inside(name, lambda: "\n".join(sorted(_settings()))),
    }
    for tool in ("iptables-legacy-save", "ip6tables-legacy-save"):
        # A table that nobody has used is not there; one with nothing in it stays. Both mean the same.
        lines = run(name, tool).splitlines()
        seen[tool] = "\n".join(line for line in lines if line[0] not in "#*C" and " ACCEPT [" not in line)
    return seen


def _settings() -> list[str]:
    found = []
    for root in ("ipv4", "ipv6", "core"):
        for folder, _, files in os.walk(f"/proc/sys/net/{root}"):
            for file in files:
                path = f"{folder}/{file}"
                with suppress(OSError, UnicodeDecodeError), open(path) as setting:  # noqa: PTH123 - a thousand of them
                    found.append(f"{path}={setting.read().strip()}")
    return found
