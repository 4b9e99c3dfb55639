"""The heartbeat for rules that fail open: given while connections are accepted."""

from __future__ import annotations

import asyncio
import socket

import pytest

from proxsmtp_tp.config.addresses import InetAddress
from proxsmtp_tp.config.settings import Settings, TransparentProxy
from proxsmtp_tp.service.worker import _heartbeats


def heard(mode: TransparentProxy, *, end: bool = False) -> bool:
    """Whether a sign comes to the listening port."""

    async def listen() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
            ear.bind(("127.0.0.1", 0))
            ear.setblocking(False)
            port = ear.getsockname()[1]
            signs = _heartbeats(Settings(listen=(InetAddress("", port),), transparent_proxy=mode))
            if end:
                signs.cancel()
            await asyncio.wait([signs], timeout=0.2)
            try:
                return ear.recv(1) == b""
            except BlockingIOError:
                return False
            finally:
                signs.cancel()
                await asyncio.gather(signs, return_exceptions=True)

    return asyncio.run(listen())


@pytest.mark.parametrize("mode", TransparentProxy)
def test_whatever_the_mode_rules_may_turn_mail_to_it(mode: TransparentProxy) -> None:
    assert heard(mode)


def test_no_more_signs_once_it_drains() -> None:
    assert not heard(TransparentProxy.CLIENT, end=True)
