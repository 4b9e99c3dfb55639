"""FilterType smtp: where the scanner is, and connections that are not made."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.addresses import InetAddress, UnixAddress
from proxsmtp_tp.filters import scanner_connection
from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.filters.scanner_endings import REPLIES, ScannerEnding
from proxsmtp_tp.filters.smtp import SmtpFilter
from proxsmtp_tp.filters.spool_space import SpoolSpace
from tests.unit.filters.filter_harness import jump, pass_through, until
from tests.unit.filters.scanner_harness import LIMIT, TEXT, begin, complete, judged, lead, scanning
from tests.unit.net.proxy_harness import Mx, Peer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.filters.conftest import Run


@pytest.mark.parametrize("kind", ["v4", "v6", "unix", "name"])
def test_every_kind_of_address(run: Run, tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        family, where = {
            "v4": (socket.AF_INET, ("127.0.0.1", 0)),
            "v6": (socket.AF_INET6, ("::1", 0)),
            "unix": (socket.AF_UNIX, str(tmp_path / "scanner")),
            "name": (socket.AF_INET, ("127.0.0.1", 0)),
        }[kind]
        async with Mx(family, where) as mx:  # type: ignore[arg-type]
            address = InetAddress("localhost", mx.port) if kind == "name" else mx.address
            async with scanning(address, tmp_path) as filter_:
                case = begin(filter_)
                peer = await lead(case, mx, "the message")
                await peer.say("250 clean")
                assert (await judged(case))[1] == TEXT
                peer.close()

    run(scenario())


def _refusing() -> InetAddress:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return InetAddress("127.0.0.1", sock.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (_refusing, "Connection refused"),
        (lambda: UnixAddress("/nonexistent/scanner"), "/nonexistent/scanner: No such file or directory"),
    ],
)
def test_no_scanner_is_no_verdict(
    run: Run, tmp_path: Path, address: Callable[[], InetAddress | UnixAddress], reason: str
) -> None:
    async def scenario() -> None:
        async with scanning(address(), tmp_path) as filter_:
            verdict, _ = await judged(complete(filter_))
            assert verdict.reply == REPLIES[ScannerEnding.UNREACHABLE]
            assert reason in verdict.detail

    run(scenario())


def test_a_name_that_is_not_known(run_jumping: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def scenario() -> None:
        async with scanning(InetAddress("scanner.example", 25), tmp_path) as filter_:
            monkeypatch.setattr(socket, "getaddrinfo", unknown)
            verdict, _ = await judged(complete(filter_))
            assert verdict.reply == REPLIES[ScannerEnding.UNREACHABLE]
            assert verdict.detail.endswith("scanner.example: Name or service not known")

    run_jumping(scenario())


def test_every_address_of_a_name_is_tried(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with Mx() as mx, scanning(mx, tmp_path) as filter_:
            dead = _refusing()

            async def targets(_: object) -> list[tuple[int, tuple[str, int]]]:
                return [(socket.AF_INET, (dead.host, dead.port)), (socket.AF_INET, ("127.0.0.1", mx.port))]

            monkeypatch.setattr(scanner_connection, "_targets", targets)
            case = begin(filter_)
            peer = await lead(case, mx, "the message")
            await peer.say("250 clean")
            assert (await judged(case))[1] == TEXT
            peer.close()

    run(scenario())


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
@pytest.mark.parametrize("end", ["silence", "abort", "space"])
def test_a_full_queue(run_jumping: Run, tmp_path: Path, family: int, end: str) -> None:
    """The kernel drops SYNs to a TCP socket, and says EAGAIN for a unix socket (connect(2)): neither is the end."""

    async def scenario() -> None:
        with socket.socket(family) as listener:
            listener.bind(str(tmp_path / "scanner") if family == socket.AF_UNIX else ("127.0.0.1", 0))
            listener.listen(0)
            listener.setblocking(False)
            name = listener.getsockname()
            address = UnixAddress(name) if isinstance(name, str) else InetAddress(*name)
            first = socket.socket(family)
            first.connect(name)
            async with scanning(address, tmp_path, limit=LIMIT) as filter_:
                case = complete(filter_)
                await pass_through(10)
                assert case.owner.verdicts == []
                if end == "abort":
                    case.abort()
                elif end == "silence":
                    jump(LIMIT)
                    assert (await judged(case))[0].detail.endswith("from the scanner, to the connection")
                else:
                    loop = asyncio.get_running_loop()
                    (await loop.sock_accept(listener))[0].close()
                    sock, _ = await loop.sock_accept(listener)  # a dropped SYN is sent again after a second
                    peer = Peer(sock)
                    await peer.say("421 busy")
                    assert (await judged(case))[0].reply == REPLIES[ScannerEnding.UNWILLING]
                    peer.close()
                await until(lambda: filter_.running == 0, "it is given up")
            first.close()

    run_jumping(scenario())


def test_a_port_alone_is_no_place(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no host"):
        SmtpFilter(InetAddress("", 10024), LIMIT, SpoolSpace(str(tmp_path)), ProcessLimit(1))


@pytest.mark.parametrize(
    ("name", "said"),
    [("gw.example", b"gw.example"), ("", b"localhost"), ("a b\r\n", b"localhost"), ("gw\n", b"localhost")],
)
def test_our_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: bytes) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert SmtpFilter(UnixAddress("/run/x"), LIMIT, SpoolSpace(str(tmp_path)), ProcessLimit(1)).own_name == said
