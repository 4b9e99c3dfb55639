"""A replica of the host for one question: do its rulesets let a client's connection, or mail, reach the daemon?

`python -m proxsmtp_tp.gateway.doctor.replica`, started in an empty network namespace (unshare --net), reads one JSON
object from standard input, makes links with the names and addresses of the host, loads its rulesets, listens as the
daemon would, and connects as a client from a namespace behind the client interface. With a mail, it also takes that
mail, and looks which server the client dialled, as the daemon must. The kernel decides: this module interprets no rule.
The links and rules are removed when the process ends.

Input: {"links": {name: [address/prefix]}, "client": name, "scripts": [[[command, ...], stdin]], "port": n,
"transparent": bool, "mail": text or "", "trials": [[client address, own address, server address, port]]}.
Output: {"results": ["accepted" | "refused" | "silent" | reason]}, one for each trial; with a mail, "accepted" means the
mail.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from proxsmtp_tp.gateway.doctor import mail_peers
from proxsmtp_tp.gateway.namespaces import Namespace, new_namespace

RT_SCOPE_LINK = 253  # linux/rtnetlink.h
IPV6_TRANSPARENT = 75  # linux/in6.h
_ANSWER_SECONDS = 1.3  # seconds; if the machine is busy, the kernel sends a second SYN after one second
_TOOL_SECONDS = 60.0
_FAR = "replica"  # the client's end of its link


def main() -> int:
    """Test the connections that standard input describes."""
    job = json.load(sys.stdin)
    with new_namespace(_client) as client:
        _make_links(job, client)
        for command, script in job["scripts"]:
            done = subprocess.run(
                command, input=script, capture_output=True, text=True, check=False, timeout=_TOOL_SECONDS
            )
            if done.returncode:
                print(f"{command[0]}: {done.stderr.strip()[:500]}", file=sys.stderr)
                return 1
        with ExitStack() as stack:
            listeners = _listeners(job, stack)
            look = _mail_trial if job["mail"] else _trial
            results = [look([*trial, job["mail"]], client, listeners) for trial in job["trials"]]
    json.dump({"results": results}, sys.stdout)
    return 0


def _make_links(job: dict[str, Any], client: Namespace) -> None:
    for path in ("conf/all/accept_dad", "conf/default/accept_dad"):
        with suppress(OSError):
            Path("/proc/sys/net/ipv6", path).write_text("0", encoding="ascii")
    for name in ("all/rp_filter", "default/rp_filter"):
        Path("/proc/sys/net/ipv4/conf", name).write_text("0", encoding="ascii")
    with IPRoute() as netlink:
        for number, (name, addresses) in enumerate(job["links"].items()):
            peer: dict[str, Any] = {"ifname": _FAR, "net_ns_pid": client.pid}
            if name != job["client"]:
                peer = {"ifname": f"replica{number}"}
            netlink.link("add", ifname=name, kind="veth", peer=peer)
            index = netlink.link_lookup(ifname=name)[0]
            netlink.link("set", index=index, state="up")
            for address in addresses:
                host, _, length = address.partition("/")
                netlink.addr("add", index=index, address=host, prefixlen=int(length), **_no_dad(host))
        netlink.link("set", index=1, state="up")
        index = netlink.link_lookup(ifname=job["client"])[0]
        for source, *_ in job["trials"]:
            netlink.route("replace", dst=_host_network(source), oif=index)


def _no_dad(address: str) -> dict[str, Any]:
    return {"flags": 2} if ":" in address else {}  # IFA_F_NODAD: the address is usable at once


def _host_network(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


def _listeners(job: dict[str, Any], stack: ExitStack) -> dict[bool, socket.socket]:
    """The listening sockets; the key is True for IPv6."""
    found = {}
    for v6, family, anywhere in ((False, socket.AF_INET, "0.0.0.0"), (True, socket.AF_INET6, "::")):  # noqa: S104
        with suppress(OSError):
            sock = stack.enter_context(closing(socket.socket(family, socket.SOCK_STREAM)))
            if v6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if job["transparent"]:
                level, option = (
                    (socket.IPPROTO_IPV6, IPV6_TRANSPARENT) if v6 else (socket.SOL_IP, socket.IP_TRANSPARENT)
                )
                sock.setsockopt(level, option, 1)
            sock.bind((anywhere, job["port"]))
            sock.listen()
            sock.setblocking(False)
            found[v6] = sock
    return found


def _trial(trial: list[Any], client: Namespace, listeners: dict[bool, socket.socket]) -> str:
    said = client.tell(json.dumps(trial))
    with suppress(OSError, KeyError):
        accepted, _ = listeners[":" in trial[0]].accept()
        accepted.close()
        return "accepted"
    return said


def _mail_trial(trial: list[Any], client: Namespace, listeners: dict[bool, socket.socket]) -> str:
    source, _, *dialled, mail = trial
    recorder, listener = mail_peers.Recorder(), listeners.get(":" in source)
    if listener is None:
        return "no listener of this IP version"
    listener.setblocking(True)
    recorder.serve(listener)
    said = client.tell(json.dumps(trial))
    for record in recorder.seen():
        if record["message"] == mail:
            own = f"it seems to be for {record['to'][0]} port {record['to'][1]}"
            return "accepted" if record["to"] == dialled else own
    return said


def _client(line: str) -> str:
    """In the client's namespace: set the address, connect, perhaps send a mail, and return the result."""
    source, gateway, server, port, mail = json.loads(line)
    try:
        with IPRoute() as netlink:
            index = netlink.link_lookup(ifname=_FAR)[0]
            netlink.link("set", index=index, state="up")
            with suppress(Exception):  # the address of an earlier trial
                netlink.addr(
                    "add", index=index, address=source, prefixlen=128 if ":" in source else 32, **_no_dad(source)
                )
            # A gateway must be reachable by a route of link scope; IPv6 routes have no scope.
            scope = {} if ":" in gateway else {"scope": RT_SCOPE_LINK}
            netlink.route("replace", dst=_host_network(gateway), oif=index, **scope)
            netlink.route("replace", dst=_host_network(server), gateway=gateway)
        if mail:
            return _sent(mail_peers.send({"source": source, "server": server, "port": port}, mail, _ANSWER_SECONDS))
        with closing(socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET)) as sock:
            sock.settimeout(_ANSWER_SECONDS)
            sock.bind((source, 0))
            sock.connect((server, port))
    except TimeoutError:
        return "silent"
    except ConnectionRefusedError:
        return "refused"
    except Exception as error:  # noqa: BLE001 - the other end waits for a line, whatever the error is
        return f"{type(error).__name__}: {error}"
    return "connected elsewhere"


def _sent(report: dict[str, Any]) -> str:
    """What became of a mail, see `mail_peers.send`."""
    if "error" not in report:
        return "delivered elsewhere"
    if "ConnectionRefused" in report["error"]:
        return "refused"
    what = "silent" if report["silent"] else report["error"]
    return what if report["at"] == "greeting" else f"{what} at {report['at']}"


if __name__ == "__main__":
    sys.exit(main())
