"""The probe's work: `python -m proxsmtp_tp.gateway.doctor.prober`, in the network namespace of the host.

It connects a client to the host, by the interface that the rules have for the probe, and a server by another one. Each
is behind a router of its own; all are in namespaces without a name. It sends mails by both IP versions at once, and
reports what client and server saw. The routers' links to client and server have the smallest MTU of IPv6, which only
the routers know: a longer mail or reply arrives only if the routers' ICMP errors (RFC 1191, RFC 8201) reach the daemon.

The addresses are those for tests of network devices (RFC 2544 appendix C.2.2, RFC 5180 section 8), which are not routed
on the Internet. Links, addresses and routes are removed with the namespaces, and these end with the processes, also
after kill -9.

Input: {"client_link", "server_link", "port" (0: no mail in clear), "reply_port" (loopback mode; else 0), "messages",
"versions", "local" (whether the host's own mail is tried, too), "seconds" (for each step), "certificate" (the server
offers STARTTLS: {"chain", "key"} in PEM; or null), "wrapped_port" (it begins with TLS there; 0: nowhere), "tls_mails"
({way: [{"tls", "port", "message", "seconds"}]}: what is sent after the mails in clear)}.
Output: for each way {"mails": [...]}, see `mail_peers.send`, each mail with "seen", see `mail_peers.Recorder.seen`.
Ways are "4" and "6", with "local" also "4 local" and "6 local". If a mail arrived at the server: also "long_reply" and
"long_mail", see `mail_peers.ask_long` and `send`.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pyroute2 import IPRoute

from proxsmtp_tp.config.addresses import PROBE_CLIENTS, PROBE_HOST
from proxsmtp_tp.gateway.doctor import mail_peers
from proxsmtp_tp.gateway.namespaces import PR_SET_PDEATHSIG, Namespace, new_namespace

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

CLIENT = PROBE_CLIENTS
HOST_TO_CLIENT = {4: "198.18.254.1", 6: "2001:2:0:fe01::1"}
HOST_TO_SERVER = PROBE_HOST
SERVER = {4: "198.18.254.14", 6: "2001:2:0:fe04::2"}
# The routers' addresses: on the side of the host, and on the side of client or server.
_CLIENT_ROUTER = ({4: "198.18.254.2", 6: "2001:2:0:fe01::2"}, {4: "198.18.254.9", 6: "2001:2:0:fe03::1"})
_SERVER_ROUTER = ({4: "198.18.254.6", 6: "2001:2:0:fe02::2"}, {4: "198.18.254.13", 6: "2001:2:0:fe04::1"})
NARROW_MTU = 1280  # RFC 8200 section 5
_PREFIX = {4: 30, 6: 64}
_FAR, _NARROW = "probe", "narrow"
_LINGER_SECONDS = 0.5  # a killed process closes its connections within milliseconds


class _Host:
    """Runs in a namespace; answers each line of JSON with one line."""

    def __init__(self) -> None:
        self._recorder = mail_peers.Recorder()

    def __call__(self, line: str) -> str:
        job = json.loads(line)
        try:
            return json.dumps(getattr(self, job.pop("do"))(**job))
        except Exception as error:  # noqa: BLE001 - the other end waits for a line, whatever the error is
            return json.dumps({"error": f"{type(error).__name__}: {error}"})

    @staticmethod
    def connect_to_host(addresses: dict[str, list[str]]) -> None:
        """Set addresses, and the host as the default gateway."""
        _use_at_once("all", _FAR)
        with IPRoute() as netlink:
            index = netlink.link_lookup(ifname=_FAR)[0]
            netlink.link("set", index=1, state="up")
            netlink.link("set", index=index, state="up")
            for version, (own, host) in addresses.items():
                _add_address(netlink, index, own, int(version))
                netlink.route("add", dst="0.0.0.0/0" if version == "4" else "::/0", gateway=host)

    @staticmethod
    def lead_to(pid: int, addresses: dict[str, str]) -> None:
        """Become the router for the namespace of a process. Only this end of the link has the small MTU."""
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii")
        if "6" in addresses:
            Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1", encoding="ascii")
        with IPRoute() as netlink:
            netlink.link("add", ifname=_NARROW, kind="veth", peer={"ifname": _FAR, "net_ns_pid": pid})
            _use_at_once(_NARROW)
            index = netlink.link_lookup(ifname=_NARROW)[0]
            netlink.link("set", index=index, mtu=NARROW_MTU, state="up")
            for version, address in addresses.items():
                _add_address(netlink, index, address, int(version))

    def listen(self, address: str, port: int, certificate: dict[str, str] | None = None, wrapped: bool = False) -> None:
        """Be a mail server, with TLS if there is a certificate."""
        tls = mail_peers.server_tls(**certificate) if certificate else None
        self._recorder.listen(address, port, tls, wrapped=wrapped)

    def seen(self) -> list[dict[str, Any]]:
        """What the mail server saw, see `mail_peers.Recorder.seen`."""
        return self._recorder.seen()

    @staticmethod
    def send_mails(ways: list[dict[str, Any]], seconds: float) -> list[list[dict[str, Any]]]:
        """Be a mail client: send the mails of each way (see `mail_peers.send`), all ways at once.

        After a mail in clear that breaks off, a way gets no more.
        """
        return in_parallel([partial(_send_on, way, seconds) for way in ways])

    @staticmethod
    def send_long(
        ways: list[dict[str, Any]], mail: str, seconds: float
    ) -> tuple[list[str], list[list[dict[str, Any]]]]:
        """Be a mail client that asks for a long reply and makes `mail` long and sends it, on each way, all at once."""
        long = {"message": mail + mail_peers.LONG}
        replies, mails = in_parallel(
            [
                lambda: in_parallel([partial(mail_peers.ask_long, way, seconds) for way in ways]),
                lambda: in_parallel([partial(_send_on, way | {"mails": [long]}, seconds) for way in ways]),
            ]
        )
        return replies, mails  # type: ignore[return-value]


def _send_on(way: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    for mail in way["mails"]:
        sent.append(mail_peers.send(way | mail, mail["message"], mail.get("seconds", seconds)))
        if "error" in sent[-1] and not sent[-1]["tls"]:
            break
    return sent


def in_parallel(calls: list[Callable[[], _T]]) -> list[_T]:
    """The results of all calls, each made in a thread of its own."""
    with ThreadPoolExecutor(max(1, len(calls))) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def _use_at_once(*names: str) -> None:
    """No duplicate address detection on an interface of the probe: it would delay link-local addresses, and with them
    the first connection (ip-sysctl.rst, accept_dad).
    """
    for name in names:
        with suppress(OSError):  # a kernel without IPv6
            Path("/proc/sys/net/ipv6/conf", name, "accept_dad").write_text("0", encoding="ascii")


def _add_address(netlink: IPRoute, index: int, address: str, version: int) -> None:
    # IFA_F_NODAD: the address is usable at once.
    flags = {"flags": 2} if version == 6 else {}
    netlink.addr("add", index=index, address=address, prefixlen=_PREFIX[version], **flags)


def _attach(
    link: str,
    router: Namespace,
    end: Namespace,
    addresses: tuple[dict[int, str], dict[int, str], dict[int, str], dict[int, str]],
) -> None:
    """Link the host to a router, and the router to a client or server; `addresses` in the order of this path."""
    own, near, far, ends = addresses
    with IPRoute() as netlink:
        netlink.link("add", ifname=link, kind="veth", peer={"ifname": _FAR, "net_ns_pid": router.pid})
        _use_at_once(link)
        index = netlink.link_lookup(ifname=link)[0]
        netlink.link("set", index=index, state="up")
        for version, address in own.items():
            _add_address(netlink, index, address, version)
        _ask(router, "connect_to_host", addresses={str(v): [near[v], own[v]] for v in own})
        _ask(router, "lead_to", pid=end.pid, addresses={str(v): far[v] for v in own})
        _ask(end, "connect_to_host", addresses={str(v): [ends[v], far[v]] for v in own})
        for version in own:
            behind = ip_interface(f"{ends[version]}/{_PREFIX[version]}").network
            netlink.route("add", dst=str(behind), gateway=near[version])


def _ask(host: Namespace, do: str, **arguments: Any) -> Any:
    answer = json.loads(host.tell(json.dumps({"do": do, **arguments})) or '{"error": "it ended"}')
    if isinstance(answer, dict) and set(answer) == {"error"}:
        raise OSError(answer["error"])
    return answer


def probe(job: dict[str, Any]) -> dict[str, Any]:
    """Make client, server and routers, send the mails, return the report."""
    versions: list[int] = job["versions"]
    with ExitStack() as stack:
        # The routers end last, so that the daemon gets the packets that close the connections.
        client_router, server_router = (
            stack.enter_context(new_namespace(_Host(), linger=_LINGER_SECONDS)) for _ in range(2)
        )
        client, server = (stack.enter_context(new_namespace(_Host())) for _ in range(2))
        to_client = {v: HOST_TO_CLIENT[v] for v in versions}
        to_server = {v: HOST_TO_SERVER[v] for v in versions}
        _attach(job["client_link"], client_router, client, (to_client, *_CLIENT_ROUTER, CLIENT))
        _attach(job["server_link"], server_router, server, (to_server, *_SERVER_ROUTER, SERVER))
        return _Sending(job, client, server).run()


class _Sending:
    """Sends all mails; then, on the ways where a mail arrived, a mail and a reply that are longer than a packet."""

    def __init__(self, job: dict[str, Any], client: Namespace, server: Namespace) -> None:
        self._job, self._client = job, client
        self._looped = bool(job["reply_port"])
        self._receiver = client if self._looped else server

    def run(self) -> dict[str, Any]:
        job = self._job
        for version in job["versions"]:
            address, port = (CLIENT[version], job["reply_port"]) if self._looped else (SERVER[version], job["port"])
            if port:
                _ask(self._receiver, "listen", address=address, port=port, certificate=job["certificate"])
            if job["wrapped_port"]:
                more = {"port": job["wrapped_port"], "certificate": job["certificate"], "wrapped": True}
                _ask(self._receiver, "listen", address=address, **more)
        ways = {name: self._way(name, CLIENT) for name in map(str, job["versions"])}
        found = self._mails(ways, local=False)
        if job["local"]:
            own = {name: self._way(name, HOST_TO_SERVER) for name in (f"{v} local" for v in job["versions"])}
            found |= self._mails(own, local=True)
        arrived = [name for name in ways if any(record["message"] for record in _seen_by(found[name]))]
        if arrived and job["port"] and not self._looped:
            self._long([ways[name] for name in arrived], [found[name] for name in arrived])
        return found

    def _way(self, name: str, sources: dict[int, str]) -> dict[str, Any]:
        job, version = self._job, int(name.partition(" ")[0])
        mails = [{"message": message} for message in job["messages"]] if job["port"] else []
        mails += job["tls_mails"].get(name, [])
        return {"source": sources[version], "server": SERVER[version], "port": job["port"], "mails": mails}

    def _mails(self, ways: dict[str, dict[str, Any]], *, local: bool) -> dict[str, Any]:
        arguments: dict[str, Any] = {"ways": list(ways.values()), "seconds": self._job["seconds"]}
        answers = _Host.send_mails(**arguments) if local else _ask(self._client, "send_mails", **arguments)
        return {name: {"mails": self._with_seen(mails)} for name, mails in zip(ways, answers, strict=True)}

    def _long(self, ways: list[dict[str, Any]], reports: list[dict[str, Any]]) -> None:
        seconds = self._job["seconds"]
        replies, answers = _ask(self._client, "send_long", ways=ways, mail=self._job["messages"][-1], seconds=seconds)
        for report, reply, mails in zip(reports, replies, answers, strict=True):
            report |= {"long_reply": reply, "long_mail": self._with_seen(mails)[0]}

    def _with_seen(self, mails: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The mails of a way, each with the connections that it made at the server (`seen`).

        They belong to a mail by their time, and to a way by their IP version: the ways of both versions are tried at
        once, and the mails of one way one after the other.
        """
        everything = _ask(self._receiver, "seen")
        for mail, after in zip(mails, [*mails[1:], None], strict=True):
            until = after["begun"] if after else float("inf")
            mail["seen"] = [
                record
                for record in everything
                if mail["begun"] <= record["at"] < until and (":" in record["peer"][0]) == mail["v6"]
            ]
        return mails


def _seen_by(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [record for mail in report["mails"] for record in mail["seen"]]


def main() -> int:
    """Run the probe that standard input describes."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        json.dump(probe(json.load(sys.stdin)), sys.stdout)
    except Exception as error:  # noqa: BLE001 - every error is reported as the reason
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
