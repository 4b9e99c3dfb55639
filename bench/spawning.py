"""How fast this machine starts commands: `sh -c cat` for a text of 1 kB each, from as many processes as it has cores.

Usage: python spawning.py NUMBER

It is the limit of a filter that is a command. There is no mail and no daemon: only posix_spawn(3), two pipes, and wait.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

TEXT = b"Subject: bench\r\n\r\n" + b"x" * 70 * 14 + b"\r\n"
COMMAND = ["sh", "-c", "cat"]


def spawn() -> None:
    """One command: the text to its standard input, and back from its standard output."""
    its_input, to_it = os.pipe()
    from_it, its_output = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, its_input, 0), (os.POSIX_SPAWN_DUP2, its_output, 1)]
    pid = os.posix_spawn("/bin/sh", COMMAND, os.environ, file_actions=actions)
    os.close(its_input)
    os.close(its_output)
    os.write(to_it, TEXT)
    os.close(to_it)
    back = b""
    while more := os.read(from_it, 65536):
        back += more
    os.close(from_it)
    os.waitpid(pid, 0)
    if back != TEXT:
        raise SystemExit(f"{COMMAND} returned {len(back)} octets of {len(TEXT)}")


def main() -> None:
    """Share the number between as many processes as there are cores; wait for all of them."""
    number, cores = int(sys.argv[1]), os.cpu_count() or 1
    for index in range(cores):
        if os.fork() == 0:
            for _ in range(number // cores + (index < number % cores)):
                spawn()
            os._exit(0)
    failed = False
    with suppress(ChildProcessError):
        while True:
            failed |= os.wait()[1] != 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
