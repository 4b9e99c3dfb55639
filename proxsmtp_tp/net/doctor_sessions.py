"""Which connections are those of `doctor`: they are neither in the log nor counted, and make no events.

Plain `doctor` connects from this host, and tells the daemon before from which port, or, for a unix socket, which
process it is. `doctor --probe` has a temporary client with an address that is routed only to it. Only root and the
daemon's user can tell the daemon, and it counts for a time. So no other client can avoid the log.
"""

from __future__ import annotations

import socket
import struct
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

from proxsmtp_tp.config.addresses import PROBE_CLIENTS, PROBE_HOST
from proxsmtp_tp.telemetry.switches import Switch, mark_of_port, mark_of_process

if TYPE_CHECKING:
    from proxsmtp_tp.net.original_destination import Endpoint
    from proxsmtp_tp.telemetry.switches import Switches

_PROBES = frozenset((*PROBE_CLIENTS.values(), *PROBE_HOST.values()))
_CREDENTIALS = struct.Struct("=iii")  # pid, uid, gid (unix(7), SO_PEERCRED)


def is_of_doctor(switches: Switches, client: socket.socket, peer: Endpoint | None, local_ip: str) -> bool:
    """Whether this accepted connection is one of doctor. `peer` is None if it came by a unix socket."""
    now = time.monotonic_ns()
    if now >= switches[Switch.PROBE_UNTIL]:
        return False
    if peer is None:
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return switches.is_doctor(mark_of_process(_CREDENTIALS.unpack(credentials)[0]), now)
    ip = peer.ip.removeprefix("::ffff:")
    if ip in _PROBES:
        return True
    of_this_host = ip == local_ip.removeprefix("::ffff:") or ip_address(ip.partition("%")[0]).is_loopback
    return of_this_host and switches.is_doctor(mark_of_port(peer.port), now)
