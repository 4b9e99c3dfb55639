"""All forms at one server, directly and through the proxy with a filter."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mta.attempts import Attempt, try_forms
from tests.mta.forms import FORMS
from tests.mta.proxy import RecordingProxy
from tests.mta.servers import START_BY_NAME, Place
from tests.mta.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT = 2500
"""Each server and its proxy have two from here on."""

DIRECT_QUIET, PROXIED_QUIET = 8.0, 30.0
"""Seconds without a message until the missing ones are given up. Directly some never come: a server can not always send
on what it makes of an odd address."""


@dataclass(frozen=True)
class Result:
    """What became of each form, in the order of FORMS; `proxy.told` knows what the filter was told of a message."""

    direct: list[Attempt]
    proxied: list[Attempt]
    proxy: RecordingProxy


@contextmanager
def all_tried() -> Iterator[dict[str, Result]]:
    """Start each server, try everything, and take all away at the end. They are tried at once: each waits a lot."""
    with ExitStack() as stack, ThreadPoolExecutor(len(START_BY_NAME)) as pool:
        places = enumerate(START_BY_NAME)
        ways = {name: stack.enter_context(ExitStack()) for name in START_BY_NAME}
        tried = {name: pool.submit(ways[name].enter_context, _all_tried(name, PORT + 2 * n)) for n, name in places}
        yield {name: one.result() for name, one in tried.items()}


@contextmanager
def _all_tried(name: str, port: int) -> Iterator[Result]:
    server_port, proxy_port = port, port + 1
    with tempfile.TemporaryDirectory(prefix="proxsmtp-mta.") as folder:
        directory = Path(folder)
        directory.chmod(0o755)
        (directory / "server").mkdir()
        sink = Sink()
        server = START_BY_NAME[name](directory / "server", Place(server_port, sink.port))
        try:
            server.wait_ready()
            proxy = RecordingProxy(directory / "proxy", proxy_port, server_port)
            try:
                proxy.wait_ready()
                direct = try_forms(server_port, FORMS, sink, "direct", DIRECT_QUIET)
                proxied = try_forms(proxy_port, FORMS, sink, "proxied", PROXIED_QUIET)
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
