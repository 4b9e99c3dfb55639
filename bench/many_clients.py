"""A million clients: what the limits of clients (Client*) keep of them takes the same memory as of a few thousand.

    .venv/bin/python -m bench.many_clients --clients 1000000

Each client is an IPv6 /64 with one connection, a message and a recipient, and all limits are configured. Memory is what
this process has, with the table that workers share, and the caches of one worker. tests/unit/net/test_many_clients.py
does the same with fewer clients.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from proxsmtp_tp.config.rates import AtOnce, RateLimit
from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.net.client_limits import WorkerLimits
from proxsmtp_tp.net.client_table import ClientTable

ALLOWED = 2 << 20
"""Octets by which the memory may grow: the interpreter frees memory late."""
_SERVERS = 50


def resident() -> int:
    """Octets of memory that this process has (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Run:
    """One worker with all limits, and a table of `size` clients."""

    def __init__(self, size: int) -> None:
        rate = RateLimit(100, 60, 100)
        settings = Settings(
            client_connections=AtOnce(10),
            client_connection_rate=rate,
            client_messages=rate,
            client_recipients=rate,
            client_servers=RateLimit(100, 3600, 100),
        )
        self.table = ClientTable(size, 1)
        self.table.begin(0)
        self.untracked = 0
        self._limits = WorkerLimits(settings, self.table, 0, self._count)

    def _count(self, _counter: object) -> None:
        self.untracked += 1

    def clients(self, first: int, number: int) -> None:
        """So many clients come, each with one message, and leave."""
        for client in range(first, first + number):
            limits = self._limits.enter(f"2001:db8:{client >> 16:x}:{client & 0xFFFF:x}::7")
            limits.connection(f"198.51.100.{client % _SERVERS}")
            limits.message()
            limits.recipient()
            limits.leave()


def grown(size: int, clients: int) -> tuple[int, Run]:
    """By how many octets the memory grows with so many clients, after the table was full once."""
    run = Run(size)
    run.clients(0, 3 * size)
    before = resident()
    run.clients(3 * size, clients)
    return resident() - before, run


def main() -> int:
    """0: the memory is constant."""
    parser = argparse.ArgumentParser(description="memory with very many clients")
    parser.add_argument("--clients", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=8192, help="ClientTableSize")
    args = parser.parse_args()
    began = time.monotonic()
    octets, run = grown(args.size, args.clients)
    print(f"{args.clients} /64s in {time.monotonic() - began:.0f} s: {octets / 1024:+.0f} KiB")
    print(f"{run.table.entries()} known, {run.table.evictions()} forgotten, {run.untracked} untracked")
    return 0 if octets < ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())
