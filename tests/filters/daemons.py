"""Starts the daemons that judge mail (rspamd, clamd, spamd, milters), each with a small configuration of its own.

They listen on unix sockets in a directory of the test. The tests run in namespaces, so nothing outlives them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

START = 120.0
"""Seconds that a daemon has to start on a busy machine."""


@contextmanager
def daemon(
    command: Sequence[str | Path], *ready: Path | tuple[str, int], environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon in the foreground; the context begins when all its sockets accept connections."""
    with tempfile.NamedTemporaryFile() as output:
        log = Path(output.name)
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        try:
            end = time.monotonic() + START
            while not all(map(accepts, ready)):
                text = log.read_text(errors="replace")[-3000:]
                assert process.poll() is None, f"{command[0]} ended:\n{text}"
                assert time.monotonic() < end, f"{command[0]} does not listen:\n{text}"
                time.sleep(0.05)
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def accepts(address: Path | tuple[str, int]) -> bool:
    """Whether somebody listens."""
    family, name = (socket.AF_UNIX, str(address)) if isinstance(address, Path) else (socket.AF_INET, address)
    with socket.socket(family) as probe:
        try:
            probe.connect(name)
        except OSError:
            return False
    return True
