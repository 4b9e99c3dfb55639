"""The daemon's unit, as systemd has it, and the last lines of a daemon that does not run.

Sources: systemctl(1), systemd.service(5), org.freedesktop.systemd1(5), journalctl(1).
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

SYSTEMD = Path("/run/systemd/system")  # exists where systemd runs (sd_booted(3))
CONFIGURATION = Path("/etc/proxsmtp-tp")
LINES = 4
"""Lines of a log: the reason is in the last one or two, and an answer must stay readable."""
_LOG_FILES = ("mail.log", "maillog", "syslog", "messages")
_TAIL = 1 << 18  # bytes of a log file: some thousand lines
_TOOL_SECONDS = 5.0
_PROPERTIES = (
    "LoadState", "ActiveState", "SubState", "Result", "MainPID", "AmbientCapabilities", "User", "NeedDaemonReload",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit and its properties; a property that systemd does not tell is empty."""

    name: str
    properties: dict[str, str]

    @property
    def loaded(self) -> bool:
        """Whether it exists."""
        return self.properties.get("LoadState") == "loaded"

    @property
    def state(self) -> str:
        """As systemctl status shows it: `failed`, `activating (auto-restart)`."""
        active, sub = self.properties.get("ActiveState", ""), self.properties.get("SubState", "")
        return active if sub in {active, "dead", ""} else f"{active} ({sub})"

    @property
    def pid(self) -> int:
        """The master; 0: it does not run."""
        return int(self.properties.get("MainPID") or 0)

    @property
    def starting(self) -> bool:
        """Whether the start is not complete, perhaps after many tries: it may have sockets of an earlier daemon."""
        return self.properties.get("ActiveState") == "activating"

    @property
    def failing(self) -> bool:
        """Whether the daemon ended by itself: at its start, or later."""
        ended = self.properties.get("Result", "success") != "success"
        return ended or self.starting or self.properties.get("ActiveState") == "failed"


def unit_name(config: str | None, instance: str) -> str | None:
    """The unit of a configuration file; None: systemd does not run, or has no unit for this file."""
    if not SYSTEMD.is_dir():
        return None
    if config is not None and Path(os.path.abspath(config)).parent != CONFIGURATION:  # noqa: PTH100 (the name counts)
        return None
    return f"proxsmtp-tp@{Path(config).stem if config is not None else instance}"


def read_unit(name: str) -> Unit:
    """What systemd says of it. Raises OSError and SubprocessError."""
    done = subprocess.run(
        ["systemctl", "show", "--property", ",".join(_PROPERTIES), f"{name}.service"],
        capture_output=True, text=True, check=False, timeout=_TOOL_SECONDS,
    )  # fmt: skip
    return Unit(name, dict(line.partition("=")[::2] for line in done.stdout.splitlines()))


def last_lines(unit: str | None, program: str = "proxsmtp") -> list[str]:
    """The last lines that the daemon logged: of its unit in the journal, else of the log daemon. Empty: none found."""
    own = ["--identifier", "proxsmtpd", "--identifier", "proxsmtp-tp"]
    # The daemon's own lines; systemd's lines about the unit's processes could fill the limit. If there are none,
    # systemd's.
    for match in [["--unit", unit, *own], ["--unit", unit]] if unit else [own]:
        try:
            done = subprocess.run(
                ["journalctl", "--quiet", "--no-pager", "--output", "cat", "--lines", str(LINES), "--boot", *match],
                capture_output=True, encoding="utf-8", errors="backslashreplace", check=False, timeout=_TOOL_SECONDS,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            break  # no journal on this host
        if lines := done.stdout.splitlines():
            return lines
    return _from_files(program)


def _from_files(program: str) -> list[str]:
    ours = re.compile(rf"\s{program}[a-z-]*\[\d+\]: ")
    for path in (Path("/var/log", name) for name in _LOG_FILES):
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _TAIL))
                text = file.read().decode("utf-8", "backslashreplace")
        except OSError:
            continue
        if found := [line for line in text.splitlines() if ours.search(line)]:
            return found[-LINES:]
    return []
