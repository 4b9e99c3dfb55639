"""Which units a host has: those of the Debian package, or those that `install-service` writes.

The package has its units and the user's entry below /usr/lib. Its `install-service` writes only drop-ins for instances.
A unit in /etc/systemd/system replaces the package's unit of the same name (systemd.unit(5)). So the package's
`install-service` deletes the units of another installation, and another installation writes none if the package is
installed. A unit there that starts the package's program was made by an administrator (`systemctl edit --full`), and
stays.
"""

from __future__ import annotations

from pathlib import Path

from proxsmtp_tp.cli import service_units as units
from proxsmtp_tp.service.installed import PACKAGED, packaged

PACKAGE_UNITS = Path("usr/lib/systemd/system")
OWN_UNITS = Path("etc/systemd/system")
SYSUSERS = Path("etc/sysusers.d/proxsmtp-tp.conf")


def refusal(root: Path) -> str | None:
    """Why this installation must not write units on the host below `root`; None: it may."""
    if packaged() or not (root / PACKAGE_UNITS / units.UNITS[0]).exists():
        return None
    return (
        f"the Debian package proxsmtp-tp has its units on this host: use its command, {PACKAGED['proxsmtp-tp']}, or"
        " remove the package first"
    )


def files(program: str) -> dict[str, str]:
    """The files for all instances that are to be written, by path below the root: none for the package."""
    return {} if packaged() else units.unit_files(program)


def removable(root: Path) -> list[Path]:
    """The files for all instances that are removed with the last one: none for the package."""
    return [] if packaged() else [*(root / OWN_UNITS / name for name in units.UNITS), root / SYSUSERS]


def others(root: Path) -> list[Path]:
    """For the package: the files of another installation that replace its own."""
    if not packaged():
        return []
    found = [root / OWN_UNITS / name for name in units.UNITS]
    theirs = [
        path for path in found if path.is_file() and "ExecStart=" in path.read_text() and not _starts_package(path)
    ]
    if not theirs:
        return []
    target, entry = found[-1], root / SYSUSERS
    return [*theirs, *(path for path in (target, entry) if path.is_file())]


def present(root: Path) -> bool:
    """Whether the units are installed."""
    return any((root / place / units.UNITS[0]).exists() for place in (OWN_UNITS, PACKAGE_UNITS))


def _starts_package(path: Path) -> bool:
    return f"ExecStart={PACKAGED['proxsmtp-tp']} " in path.read_text()
