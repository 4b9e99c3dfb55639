"""A worker does not become slower unnoticed: instructions of a message and of a session, and system calls of a session.

Counts, which no other process disturbs. The limits of instructions are 1.3 times what was counted on 28 Nov 2026
with CPython 3.11.7. A change that needs more raises them, and its commit says why. `python -m bench.instructions
--profile` shows which functions take them, `python -m bench.system_calls` which calls there are.
"""

from __future__ import annotations

import pytest

from bench.instructions import instructions
from bench.system_calls import system_calls
from proxsmtp_tp.session import session

MAX = {  # interpreted, compiled
    "connection": (896_000, 243_000),
    "accept": (2_191_000, 926_000),
}

CALLS = {
    # 14 pieces come from the peers and 13 go to them; 3 log lines: accepted, the message, disconnected.
    "read": 14,
    "write": 16,
    # Two sockets. uvloop makes each of them non-blocking by ioctl(2).
    "accept4": 1,
    "socket": 1,
    "connect": 1,
    "ioctl": 2,
    "setsockopt": 2,  # TCP_NODELAY, by uvloop
    "shutdown": 1,  # after the last reply
    "close": 2,
    # The client's name is its destination with TPROXY, and the name of our own socket is compared to find loops. One is
    # of Python's accept, two are of uvloop, as is getpeername.
    "getsockname": 5,
    "getpeername": 2,
    "getsockopt": 1,  # SO_ORIGINAL_DST
    "fcntl": 2,  # the lock with which a client is counted, so that MaxConnections holds over all workers
}
"""How often a session with one message makes each call."""


@pytest.mark.parametrize("part", MAX)
def test_instructions(part: str) -> None:
    compiled = not (session.__file__ or "").endswith(".py")
    assert MAX[part][1] // 5 < instructions(part) <= MAX[part][compiled]


def test_system_calls_of_a_session() -> None:
    found = system_calls()
    assert {name for name in ("read", "write", "accept4") if name in found} == {"read", "write", "accept4"}
    more = {name: calls for name, calls in found.items() if calls > CALLS.get(name, 0) + 0.5}
    assert not more
