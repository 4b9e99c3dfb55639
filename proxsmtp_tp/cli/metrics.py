"""proxsmtp-tp metrics: the numbers of the running daemon as text for Prometheus, once or over HTTP.

It needs no privilege but the daemon's group, which may connect to the metrics socket.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from proxsmtp_tp.cli.daemon import NoAnswerError, complain, status_socket
from proxsmtp_tp.cli.instances import add_options
from proxsmtp_tp.cli.service_metrics import PORT
from proxsmtp_tp.config.addresses import InetAddress, parse_address

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `metrics`."""
    parser = subparsers.add_parser("metrics", help="print the numbers for Prometheus, or serve them")
    add_options(parser)
    parser.add_argument("--listen", metavar="ADDRESS", help="serve http://ADDRESS/metrics until it is ended")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """0: printed, or ended by a signal. 1: the daemon does not answer, or the address is in use. 2: usage."""
    if args.listen is None:
        try:
            print(_read(args), end="")
        except NoAnswerError as error:
            return complain(error)
        return 0
    try:
        address = parse_address(args.listen, PORT)
    except ValueError as error:
        print(f"--listen: {error}", file=sys.stderr)
        return 2
    if not isinstance(address, InetAddress):
        print("--listen: write an IP address and a port", file=sys.stderr)
        return 2
    try:
        server = serve(address.host, address.port, lambda: _read(args))
    except OSError as error:
        print(f"cannot listen on {address}: {error.strerror or error}", file=sys.stderr)
        return 1
    with server:
        server.serve_forever()
    return 0


def serve(host: str, port: int, read: Callable[[], str]) -> ThreadingHTTPServer:
    """A server that listens. `read` returns the text; if it raises NoAnswerError, the answer is 503 without metrics."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds, for a client that sends nothing

        def do_GET(self) -> None:
            """Prometheus asks for /metrics."""
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404)
                return
            try:
                body = read().encode()
            except NoAnswerError:
                self.send_error(503, "the daemon does not answer")
                return
            self.send_response(200)
            self.send_header("Content-Type", _TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing: Prometheus asks every few seconds."""

    kind = type("Server", (ThreadingHTTPServer,), {"address_family": _family(host), "daemon_threads": True})
    return kind((host or "127.0.0.1", port), Handler)  # type: ignore[no-any-return]


def _family(host: str) -> int:
    import socket  # noqa: PLC0415  (not for --help)

    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _read(args: argparse.Namespace) -> str:
    from proxsmtp_tp.service.metrics_socket import read_metrics  # noqa: PLC0415
    from proxsmtp_tp.service.status import metrics_path  # noqa: PLC0415

    path = metrics_path(status_socket(args))
    try:
        return read_metrics(path)
    except PermissionError:
        raise NoAnswerError("only root and the daemon's group may ask") from None
    except OSError as error:
        raise NoAnswerError(f"the daemon does not answer at {path}: {error}") from None
