"""The proxy before one server; with a filter that writes down what it is told, or another, or none."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.mta.sink import Arrived

COMMAND = Path(sys.executable).parent / "proxsmtp-tp"

RECORD = """\
#!/bin/sh
# The first line of each message is its mark. What is told goes to a file of that name.
IFS= read -r mark
printf '%s\\n%s' "$SENDER" "$RECIPIENTS" >"{folder}/$(printf %s "${{mark#*: }}" | tr -d '\\r')"
printf '%s\\n' "$mark"
exec cat
"""


@dataclass(frozen=True)
class Told:
    """What the filter found in SENDER and RECIPIENTS."""

    sender: bytes
    recipients: list[bytes]


class Proxy:
    """`proxsmtp-tp serve` on 127.0.0.1:`port`, before a server on 127.0.0.1; with a FilterCommand, or none."""

    def __init__(self, folder: Path, port: int, server_port: int, command: str | Path | None = None) -> None:
        self._folder = folder
        (folder / "temp").mkdir(parents=True)
        filtering = "" if command is None else f"FilterType: pipe\nFilterCommand: {command}\n"
        (folder / "conf").write_text(
            f"Listen: 127.0.0.1:{port}\nOutAddress: 127.0.0.1:{server_port}\nTempDirectory: {folder}/temp\n"
            f"{filtering}Workers: 1\n"
        )
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [COMMAND, "serve", "-f", str(folder / "conf"), "-p", str(folder / "pid")], stderr=log
            )

    def wait_ready(self) -> None:
        """Until it accepts."""
        end = time.monotonic() + 30
        pid = self._folder / "pid"
        while not (pid.exists() and pid.stat().st_size):
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)


class RecordingProxy(Proxy):
    """Its filter writes down what it is told."""

    def __init__(self, folder: Path, port: int, server_port: int) -> None:
        (folder / "told").mkdir(parents=True)
        script = folder / "record"
        script.write_text(RECORD.format(folder=folder / "told"))
        script.chmod(0o755)
        super().__init__(folder, port, server_port, script)

    def told(self, message: Arrived) -> Told:
        """What the filter was told of this message."""
        sender, *recipients = (self._folder / "told" / message.mark.decode()).read_bytes().split(b"\n")
        return Told(sender, recipients)
