"""proxsmtp-tp on the gateway of a test, as an administrator or a unit starts it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_CODE = "import sys; from proxsmtp_tp.cli.main import main; sys.exit(main())"


def command_line(namespace: str, state: Path, command: str, *arguments: str) -> list[str]:
    """What to execute."""
    return [
        "ip",
        "netns",
        "exec",
        namespace,
        sys.executable,
        "-c",
        _CODE,
        command,
        "--state-dir",
        str(state),
        *arguments,
    ]


def start(namespace: str, state: Path, command: str, *arguments: str) -> subprocess.Popen[str]:
    """Start it, without waiting for its end."""
    return subprocess.Popen(
        command_line(namespace, state, command, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def watchdogs(state: Path) -> dict[int, float]:
    """Processes that wait for the end of a trial (`gateway.confirm`): when that is, in seconds of CLOCK_BOOTTIME."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_text().split("\0")
            if "proxsmtp_tp.gateway.confirm" in words and str(state) in words:
                found[int(folder.name)] = float(words[words.index("--state-dir") - 1])
    return found


def end(process: subprocess.Popen[str], seconds: float = 120.0) -> tuple[int, str, str]:
    """Wait for it: status, standard output, standard error."""
    said, complained = process.communicate(timeout=seconds)
    return process.returncode, said, complained
