"""Tests in a copy of the host what its own rules forward: `python -m proxsmtp_tp.gateway.forward_trial`.

It is started in an empty network namespace (unshare --net). It reads one JSON object from standard input, makes links
with the names and addresses of the host, loads the host's rulesets without ours, and sends one SYN for each trial from
a namespace behind the client interface. The kernel decides: this module interprets no rule. The links and rules are
removed when the process ends.

Input: {"links": {name: [address/prefix]}, "client": name, "scripts": [[[command, ...], stdin]], "priority": n,
"trials": [[client, server, port, interface out]]}. Output: {"results": ["forwarded" | "stopped" | "early"]}, one for
each trial. early: stopped before `priority` of the prerouting hook, that is, before our rules would intercept it.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time
from contextlib import closing, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from proxsmtp_tp.gateway.namespaces import Namespace, new_namespace

_FAR = "far"  # the client's end of its link
_NUD_PERMANENT = 0x80  # linux/neighbour.h
_TOOL_SECONDS = 60.0
_SECONDS = 3.0  # a packet needs microseconds, but the host may be busy
_ROUNDS = 0.3  # seconds until SYNs that did not arrive are sent again
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
_TCP, _SYN = 6, 0x02
_WATCH = """
table inet proxsmtp_trial {{
	set early {{ typeof tcp sequence; size 65535; flags dynamic; }}
	set out {{ typeof tcp sequence; size 65535; flags dynamic; }}
	chain arrived {{ type filter hook prerouting priority {priority}; tcp flags syn add @early {{ tcp sequence }}; }}
	chain left {{ type filter hook postrouting priority 1000; tcp flags syn add @out {{ tcp sequence }}; }}
}}
"""


def main() -> int:
    """Run the trials that standard input describes."""
    job = json.load(sys.stdin)
    with new_namespace(_send) as client:
        mac = _make_links(job, client)
        watch = [["nft", "-f", "-"], _WATCH.format(priority=job["priority"])]
        for command, script in [*job["scripts"], watch]:
            done = subprocess.run(
                command, input=script, capture_output=True, text=True, check=False, timeout=_TOOL_SECONDS
            )
            if done.returncode:
                print(f"{command[0]}: {done.stderr.strip()[:500]}", file=sys.stderr)
                return 1
        json.dump({"results": _results(job["trials"], client, mac)}, sys.stdout)
    return 0


def _results(trials: list[list[Any]], client: Namespace, mac: str) -> list[str]:
    wanted = set(range(1, len(trials) + 1))
    early: set[int] = set()
    out: set[int] = set()
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end and not (wanted <= out):
        missing = sorted(wanted - out)
        said = client.tell(json.dumps([mac, [[number, *trials[number - 1][:3]] for number in missing]]))
        if said != "sent":
            raise OSError(said)
        time.sleep(_ROUNDS)
        seen = _numbers("early"), _numbers("out")
        if seen == (early, out) and early:
            break  # no further SYN arrived in a second round
        early, out = seen
    return ["forwarded" if n in out else "stopped" if n in early else "early" for n in sorted(wanted)]


def _numbers(name: str) -> set[int]:
    listed = subprocess.run(
        ["nft", "-j", "list", "set", "inet", "proxsmtp_trial", name],
        capture_output=True, text=True, check=True, timeout=_TOOL_SECONDS,
    )  # fmt: skip
    return {
        int(element)
        for item in json.loads(listed.stdout)["nftables"]
        for element in item.get("set", {}).get("elem", [])
    }


def _make_links(job: dict[str, Any], client: Namespace) -> str:
    """Make the host's links, and routes to every client and server. Returns the client interface's link address."""
    for name, value in {
        "ipv4/ip_forward": "1", "ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0",
        "ipv6/conf/all/forwarding": "1", "ipv6/conf/all/accept_dad": "0", "ipv6/conf/default/accept_dad": "0",
    }.items():  # fmt: skip
        with suppress(OSError):
            Path("/proc/sys/net", name).write_text(value, encoding="ascii")
    with IPRoute() as netlink:
        netlink.link("set", index=1, state="up")
        indexes = {}
        for number, (name, addresses) in enumerate(job["links"].items()):
            far: dict[str, Any] = {"ifname": f"far{number}"}
            if name == job["client"]:
                far = {"ifname": _FAR, "net_ns_pid": client.pid}
            netlink.link("add", ifname=name, kind="veth", peer=far)
            indexes[name] = netlink.link_lookup(ifname=name)[0]
            netlink.link("set", index=indexes[name], state="up")
            if name != job["client"]:
                netlink.link("set", index=netlink.link_lookup(ifname=f"far{number}")[0], state="up")
            for address in addresses:
                host, _, length = address.partition("/")
                flags = {"flags": 2} if ":" in host else {}  # IFA_F_NODAD: usable at once
                netlink.addr("add", index=indexes[name], address=host, prefixlen=int(length), **flags)
        client.tell(json.dumps(["", []]))
        for source, server, _, out in job["trials"]:
            for address, index in ((source, indexes[job["client"]]), (server, indexes[out])):
                bits = 128 if ":" in address else 32
                netlink.route("replace", dst=f"{address}/{bits}", oif=index)
                netlink.neigh("replace", dst=address, lladdr="02:00:00:00:00:01", ifindex=index, state=_NUD_PERMANENT)
        (link,) = netlink.get_links(indexes[job["client"]])
        return str(link.get("IFLA_ADDRESS"))


def _send(line: str) -> str:
    """In the client's namespace: send a SYN for each [number, client, server, port]; number: its sequence number."""
    mac, syns = json.loads(line)
    try:
        with IPRoute() as netlink:
            netlink.link("set", index=netlink.link_lookup(ifname=_FAR)[0], state="up")
        with closing(socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as sock:
            if syns:
                sock.bind((_FAR, 0))
            for number, source, server, port in syns:
                version = ip_address(source).version
                head = bytes.fromhex(mac.replace(":", "")) + b"\x02\0\0\0\0\x01" + _ETHERTYPES[version].to_bytes(2)
                sock.send(head + syn(source, server, port, number))
    except Exception as error:  # noqa: BLE001 - the other end waits for a line, whatever the error is
        return f"{type(error).__name__}: {error}"
    return "sent"


def syn(source: str, server: str, port: int, number: int) -> bytes:
    """An IP packet with the SYN of a connection (RFC 791, 8200, 9293); `number` is its sequence number."""
    ends: bytes = ip_address(source).packed + ip_address(server).packed
    ports = struct.pack("!HH", 20000 + number % 40000, port)
    tail = struct.pack("!IIBBHHH", number, 0, 5 << 4, _SYN, 64240, 0, 0)
    pseudo = ends + struct.pack("!IBBBB", len(ports + tail), 0, 0, 0, _TCP)
    segment: bytes = ports + tail[:12] + _checksum(pseudo + ports + tail) + tail[14:]
    if len(ends) == 8:
        head: bytes = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), number & 0xFFFF, 0, 64, _TCP, 0) + ends
        return b"".join((head[:10], _checksum(head), head[12:], segment))
    return b"".join((struct.pack("!IHBB", 6 << 28, len(segment), _TCP, 64), ends, segment))


def _checksum(data: bytes) -> bytes:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2)


if __name__ == "__main__":
    sys.exit(main())
