"""All forms at one server, directly and through the proxy with a filter."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mta.forms import FORMS
from tests.mta.proxy import RecordingProxy
from tests.mta.servers import START_BY_NAME
from tests.mta.sink import Sink
from tests.mta.trying import Tried, try_forms

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER_PORT, PROXY_PORT = 2501, 2500

DIRECT_QUIET, PROXIED_QUIET = 8.0, 30.0
"""Seconds without a message until the missing ones are given up. Directly some never come: a server can not always send
on what it makes of an odd address."""


@dataclass(frozen=True)
class Result:
    """What became of each form, in the order of FORMS; `proxy.told` knows what the filter was told of a message."""

    direct: list[Tried]
    proxied: list[Tried]
    proxy: RecordingProxy


@contextmanager
def all_tried(name: str) -> Iterator[Result]:
    """Start this server, try everything, and take all away at the end."""
    with tempfile.TemporaryDirectory(prefix="proxsmtp-mta.") as folder:
        directory = Path(folder)
        directory.chmod(0o755)
        (directory / "server").mkdir()
        sink = Sink()
        server = START_BY_NAME[name](directory / "server", SERVER_PORT, sink.port)
        try:
            server.wait_ready()
            proxy = RecordingProxy(directory / "proxy", PROXY_PORT, SERVER_PORT)
            try:
                proxy.wait_ready()
                direct = try_forms(SERVER_PORT, FORMS, sink, "direct", DIRECT_QUIET)
                proxied = try_forms(PROXY_PORT, FORMS, sink, "proxied", PROXIED_QUIET)
                yield Result(direct, proxied, proxy)
            finally:
                proxy.stop()
        finally:
            server.stop()
            sink.stop()


def used(argument: bytes) -> bytes:
    """The path in what a server says to the next one: `FROM:<a@b> SIZE=1` is `<a@b>`."""
    path, end, _ = argument.partition(b":")[2].rpartition(b">")
    return path + end
