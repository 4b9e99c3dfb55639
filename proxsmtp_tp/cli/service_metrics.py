"""install-service --metrics: the unit that serves the numbers of an instance for Prometheus, and where it listens.

The address is in a drop-in of the instance. An install-service without the option leaves it as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.cli import service_units as units
from proxsmtp_tp.config.addresses import InetAddress, parse_address

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from proxsmtp_tp.config.settings import Settings

PORT = 9725
"""The port, if an address has none. No other exporter of Prometheus is registered for it."""
OFF = "off"


class MetricsError(Exception):
    """The option cannot be used in this way. The text says why."""


def files(root: Path, instances: Mapping[str, Settings], given: str | None) -> dict[str, str]:
    """The drop-ins that must be there, by path below the root. `given`: the value of --metrics. Raises MetricsError."""
    found = {}
    address = _address(given) if given not in {None, OFF} else None
    if address is not None and len(instances) != 1:
        raise MetricsError("--metrics is for one instance, because each needs a port of its own: name it")
    for name, settings in instances.items():
        path = root / units.metrics_path(name)
        if address is not None:
            where, text = units.metrics_file(name, settings, f"/etc/proxsmtp-tp/{name}.conf", address)
            found[where] = text
        elif given is None and path.is_file():
            found[units.metrics_path(name)] = path.read_text(encoding="utf-8")
    return found


def _address(given: str | None) -> str:
    try:
        address = parse_address(given or "", PORT)
    except ValueError as error:
        raise MetricsError(f"--metrics: {error}") from None
    if not isinstance(address, InetAddress):
        raise MetricsError("--metrics: write an IP address and a port")
    return str(address)
