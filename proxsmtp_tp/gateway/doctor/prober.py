"""The probe's work: `python -m proxsmtp_tp.gateway.doctor.prober`, in the network namespace of the host.

It connects a client to the host, by the interface that the rules have for the probe, and a server by another one. Each
is behind a router of its own; all are in namespaces without a name. It sends one mail for each IP version, and reports
what client and server saw. The routers' links to client and server have the smallest MTU of IPv6, which only the
routers know: a longer mail or reply arrives only if the routers' ICMP errors (RFC 1191, RFC 8201) reach the daemon.

The addresses are those for tests of network devices (RFC 2544 appendix C.2.2, RFC 5180 section 8), which are not routed
on the Internet. Links, addresses and routes are removed with the namespaces, and these end with the processes, also
after kill -9.

Input: {"client_link", "server_link", "port", "reply_port" (loopback mode; else 0), "deliver", "versions", "seconds"}.
Output: {"4": {...}, "6": {...}}: "client", see `_Host.send`; "server", see `Recorder.seen`. If the mail arrived at
the server: also "long_reply" and "long_mail", see `_Host.ask_long` and `_Host.send`, and "long_seen" (like "server").
"""

from __future__ import annotations

import ctypes
import json
import signal
import smtplib
import socket
import sys
import threading
import time
from contextlib import ExitStack, closing, suppress
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyroute2 import IPRoute

from proxsmtp_tp.gateway.namespaces import PR_SET_PDEATHSIG, Namespace, new_namespace

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENT = {4: "198.18.254.10", 6: "2001:2:0:fe03::2"}
HOST_TO_CLIENT = {4: "198.18.254.1", 6: "2001:2:0:fe01::1"}
HOST_TO_SERVER = {4: "198.18.254.5", 6: "2001:2:0:fe02::1"}
SERVER = {4: "198.18.254.14", 6: "2001:2:0:fe04::2"}
# The routers' addresses: on the side of the host, and on the side of client or server.
_CLIENT_ROUTER = ({4: "198.18.254.2", 6: "2001:2:0:fe01::2"}, {4: "198.18.254.9", 6: "2001:2:0:fe03::1"})
_SERVER_ROUTER = ({4: "198.18.254.6", 6: "2001:2:0:fe02::2"}, {4: "198.18.254.13", 6: "2001:2:0:fe04::1"})
NARROW_MTU = 1280  # RFC 8200 section 5
_PREFIX = {4: 30, 6: 64}
_FAR, _NARROW = "probe", "narrow"
MESSAGE = (
    "From: doctor@doctor.invalid\r\nTo: probe@doctor.invalid\r\nSubject: proxsmtp-tp doctor --probe\r\n"
    "\r\nThis mail tests the gateway between two throw-away hosts.\r\n"
)
LONG_MESSAGE = MESSAGE + 200 * (76 * "x" + "\r\n")  # 15 kB: many packets
LONG_REPLY_OCTETS = 4096
"""The server's reply to HELP has at least so many: more than fit into one packet."""
_LONG_REPLY = b"".join(b"214-" + b"help " * 12 + b"\r\n" for _ in range(LONG_REPLY_OCTETS // 60 + 1)) + b"214 end\r\n"
_REPLIES = {b"QUIT": b"221 bye\r\n", b"HELP": _LONG_REPLY}
_LINE_MAX = 1 << 16
_SESSION_SECONDS = 60.0
_LINGER_SECONDS = 0.5  # a killed process closes its connections within milliseconds
_LONG_REPLY_SECONDS = 10.0  # a reply to HELP needs no filter and no lookup


class Recorder:
    """A mail server for one mail at a time, which records what it saw."""

    def __init__(self) -> None:
        self._seen: list[dict[str, Any]] = []

    def listen(self, address: str, port: int) -> None:
        """Accept from now on."""
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen()
        threading.Thread(target=self._accept, args=(sock,), daemon=True).start()

    def seen(self) -> list[dict[str, Any]]:
        """For each connection so far: peer (address, port), and the message ("" if none came)."""
        return self._seen

    def _accept(self, sock: socket.socket) -> None:
        while True:
            link, peer = sock.accept()
            link.settimeout(_SESSION_SECONDS)
            record = {"peer": list(peer[:2]), "message": ""}
            self._seen.append(record)
            with closing(link), suppress(OSError):
                self._converse(link, record)

    @staticmethod
    def _converse(link: socket.socket, record: dict[str, Any]) -> None:
        lines = link.makefile("rb")
        link.sendall(b"220 server.doctor.invalid ESMTP\r\n")
        while line := lines.readline(_LINE_MAX):
            verb = line[:4].upper()
            if verb == b"DATA":
                link.sendall(b"354 go on\r\n")
                body = []
                while (line := lines.readline(_LINE_MAX)) not in {b".\r\n", b""}:
                    body.append(line.decode("utf-8", "replace"))
                record["message"] = "".join(body)
            link.sendall(_REPLIES.get(verb, b"250 ok\r\n"))
            if verb == b"QUIT":
                return


class _Host:
    """Runs in a namespace; answers each line of JSON with one line."""

    def __init__(self) -> None:
        self._recorder = Recorder()

    def __call__(self, line: str) -> str:
        job = json.loads(line)
        try:
            return json.dumps(getattr(self, job.pop("do"))(**job))
        except Exception as error:  # noqa: BLE001 - the other end waits for a line, whatever the error is
            return json.dumps({"error": f"{type(error).__name__}: {error}"})

    @staticmethod
    def connect_to_host(addresses: dict[str, list[str]]) -> None:
        """Set addresses, and the host as the default gateway."""
        with IPRoute() as netlink:
            index = netlink.link_lookup(ifname=_FAR)[0]
            netlink.link("set", index=1, state="up")
            netlink.link("set", index=index, state="up")
            for version, (own, host) in addresses.items():
                _add_address(netlink, index, own, int(version))
                netlink.route("add", dst="0.0.0.0/0" if version == "4" else "::/0", gateway=host)

    @staticmethod
    def lead_to(pid: int, addresses: dict[str, str]) -> None:
        """Be the router for the namespace of a process. Only this end of the link has the small MTU."""
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii")
        if "6" in addresses:
            Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1", encoding="ascii")
        with IPRoute() as netlink:
            netlink.link("add", ifname=_NARROW, kind="veth", peer={"ifname": _FAR, "net_ns_pid": pid})
            index = netlink.link_lookup(ifname=_NARROW)[0]
            netlink.link("set", index=index, mtu=NARROW_MTU, state="up")
            for version, address in addresses.items():
                _add_address(netlink, index, address, int(version))

    def listen(self, address: str, port: int) -> None:
        """Be a mail server."""
        self._recorder.listen(address, port)

    def seen(self) -> list[dict[str, Any]]:
        """What the mail server saw."""
        return self._recorder.seen()

    @staticmethod
    def ask_long(source: str, server: str, port: int) -> str:
        """Be a mail client that asks for a long reply: returns "arrived", "silence", another reply, or an error."""
        try:
            with smtplib.SMTP(timeout=_LONG_REPLY_SECONDS, local_hostname="client.doctor.invalid") as link:
                link.source_address = (source, 0)
                link.connect(server, port)
                link.ehlo()
                code, text = link.docmd("HELP")
        except (OSError, smtplib.SMTPException) as error:
            # smtplib reports a time-out as a closed connection.
            timed_out = isinstance(error.__context__ or error, TimeoutError)
            return "silence" if timed_out else f"{type(error).__name__}: {error}"
        return "arrived" if len(text) >= LONG_REPLY_OCTETS else _reply(code, text)

    @staticmethod
    def send(source: str, server: str, port: int, message: str, seconds: float) -> dict[str, Any]:
        """Be a mail client: returns own (address, port), greeting, and the last reply with its step.

        Without a message it ends after MAIL.
        """
        found: dict[str, Any] = {"own": [], "greeting": "", "step": "connect", "reply": ""}
        begun = time.monotonic()
        try:
            with smtplib.SMTP(timeout=seconds, local_hostname="client.doctor.invalid") as link:
                link.source_address = (source, 0)
                code, text = link.connect(server, port)
                found |= {"own": _name(link), "greeting": _reply(code, text)}
                steps: list[tuple[str, Callable[[], tuple[int, bytes]]]] = [
                    ("EHLO", link.ehlo),
                    ("MAIL", lambda: link.mail("doctor@doctor.invalid")),
                ]
                if message:
                    steps += [
                        ("RCPT", lambda: link.rcpt("probe@doctor.invalid")),
                        ("DATA", lambda: link.data(message)),
                    ]
                for step, act in steps:
                    code, text = act()
                    found |= {"step": step, "reply": _reply(code, text)}
                    if code >= 400:
                        break
        except (OSError, smtplib.SMTPException) as error:
            found["error"] = f"{type(error).__name__} after {time.monotonic() - begun:.0f} s: {error}"
        return found


def _name(link: smtplib.SMTP) -> list[Any]:
    """Address and port of a connected client."""
    return [] if link.sock is None else list(link.sock.getsockname()[:2])


def _reply(code: int, text: bytes) -> str:
    return f"{code} {text.decode('utf-8', 'replace')}"


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
        return {str(version): _of_version(job, version, client, server) for version in versions}


def _of_version(job: dict[str, Any], version: int, client: Namespace, server: Namespace) -> dict[str, Any]:
    receiver, address, port = server, SERVER[version], job["port"]
    if job["reply_port"]:
        receiver, address, port = client, CLIENT[version], job["reply_port"]
    _ask(receiver, "listen", address=address, port=port)
    way = {"source": CLIENT[version], "server": SERVER[version], "port": job["port"]}
    message = MESSAGE if job["deliver"] else ""
    before = len(_ask(receiver, "seen"))
    found = {
        "client": _ask(client, "send", **way, message=message, seconds=job["seconds"]),
        "server": _ask(receiver, "seen")[before:],
    }
    if receiver is server and any(record["message"] for record in found["server"]):
        found["long_reply"] = _ask(client, "ask_long", **way)
        before = len(_ask(receiver, "seen"))
        found["long_mail"] = _ask(client, "send", **way, message=LONG_MESSAGE, seconds=job["seconds"])
        found["long_seen"] = _ask(receiver, "seen")[before:]
    return found


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
