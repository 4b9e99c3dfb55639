"""proxsmtp-tp on the gateway of a test, as an administrator or a unit starts it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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


def end(process: subprocess.Popen[str], seconds: float = 120.0) -> tuple[int, str, str]:
    """Wait for it: status, standard output, standard error."""
    said, complained = process.communicate(timeout=seconds)
    return process.returncode, said, complained
