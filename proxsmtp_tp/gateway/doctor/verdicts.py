"""What the daemon's status tells of messages that its filter did not pass."""

from __future__ import annotations

import time
from ipaddress import IPv6Address, ip_address
from typing import Any

_CLOCKS = 0.1  # seconds; the daemon's times are rounded, and its answer takes a moment


def of_client(status: dict[str, Any] | None, client: str, mail: dict[str, Any]) -> dict[str, Any] | None:
    """How the filter refused or discarded a mail of the probe: see `telemetry.recent_failures`; None: unknown."""
    now = time.monotonic()
    for entry in ((status or {}).get("filter") or {}).get("failed", []):
        when = now - entry["seconds"]
        if _same(entry["peer"], client) and mail["begun"] - _CLOCKS <= when <= mail["ended"] + _CLOCKS:
            return dict(entry)
    return None


def _same(one: str, other: str) -> bool:
    try:
        found = ip_address(one)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return (mapped or found) == ip_address(other)
