"""Twenty sessions at once from smtp-source(1) to smtp-sink(1), 1 kB messages: all arrive, each once."""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab import network
from proxsmtp_tp.lab.gateway import Instance
from proxsmtp_tp.lab.network import LabError

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.lab.network import GatewayNetwork, Host

SESSIONS, MESSAGES, OCTETS = 20, 400, 1000


def _await_port(client: Host, address: str) -> None:
    for _ in range(200):
        with suppress(OSError), client.connect(address, 25, 5):
            return
        time.sleep(0.05)
    raise LabError(f"nobody listens on {address}")


@pytest.mark.parametrize("filter_command", [None, "cat"], ids=["unfiltered", "filtered"])
@pytest.mark.parametrize("address", [network.MX_V4, network.MX_V6], ids=["v4", "v6"])
def test_all_arrive(lab: GatewayNetwork, directory: Path, address: str, filter_command: str | None) -> None:
    dumps = directory / f"sink-{address.replace(':', '_')}-{filter_command}"
    dumps.mkdir()
    shutil.chown(dumps, "nobody")
    sink = lab.mx.start(
        *("smtp-sink", "-u", "nobody", "-d", f"{dumps}/", f"inet:[{address}]:25", "1024"),
    )
    directives = {"TransparentProxy": "client", "TempDirectory": str(directory), "RuleInterface": "lan"}
    if filter_command:
        directives["FilterCommand"] = filter_command
    try:
        _await_port(lab.mx, address)
        with Instance(lab.gateway, directory, directives, dumps.name).running():
            lab.sender.run(
                *("smtp-source", "-N", "-s", str(SESSIONS), "-m", str(MESSAGES), "-l", str(OCTETS)),
                *("-M", "sender.example", "-f", "alice@sender.example", "-t", "bob@mx.example"),
                f"inet:[{address}]:25",
                seconds=60,
            )
    finally:
        lab.mx.stop(sink)
    kept = [file.read_text() for file in dumps.iterdir()]
    recipients = Counter(
        match[1] for text in kept for match in re.finditer(r"^X-Rcpt-Args: <(.*)>", text, re.MULTILINE)
    )
    assert recipients == Counter(f"{number}bob@mx.example" for number in range(1, MESSAGES + 1))
    assert all(text.count("X" * 70) >= OCTETS // 80 for text in kept), "a message lost some of its text"
