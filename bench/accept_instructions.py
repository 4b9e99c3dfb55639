"""A session with one message through a whole worker, for `instructions`.

From accept(2) to close(2), with the event loop and real sockets. The client and the server are a process of their own,
which is not counted.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

from bench.dialogue import GREETED, LEFT, SENT

_PEERS = "import sys; from bench.accept_instructions import peers; peers(*map(int, sys.argv[1:]))"


async def worker(dialogues: int) -> None:
    """A worker, until its peers have had all their dialogues."""
    from proxsmtp_tp.config.reader import parse_config  # noqa: PLC0415
    from proxsmtp_tp.net.admission import Admission  # noqa: PLC0415
    from proxsmtp_tp.net.proxy import Proxy  # noqa: PLC0415
    from proxsmtp_tp.session.state import Reason  # noqa: PLC0415

    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        to = server.getsockname()[1]
        settings = parse_config(f"Listen: 127.0.0.1:10025\nOutAddress: 127.0.0.1:{to}\n".encode(), "bench").settings
        proxy = Proxy(settings, [listener], Admission(1000, 1), 0)
        serving = asyncio.get_running_loop().create_task(proxy.run())
        numbers = (server.fileno(), listener.getsockname()[1], dialogues)
        command = [sys.executable, "-c", _PEERS, *map(str, numbers)]
        tree = Path(__file__).parents[1]
        running = await asyncio.create_subprocess_exec(*command, pass_fds=numbers[:1], cwd=tree)
        if await running.wait():
            raise RuntimeError("the dialogue has not come to its end")
        proxy.drain(Reason.STOP)
        await serving


def peers(server: int, port: int, dialogues: int) -> None:
    """Client and server, one dialogue after the other. `server`: a descriptor that listens."""
    with socket.socket(fileno=server) as listening:
        for _ in range(dialogues):
            with socket.create_connection(("127.0.0.1", port)) as client, listening.accept()[0] as accepted:
                for said, answer in (*GREETED, *SENT, *LEFT):
                    if said:
                        client.sendall(said)
                        _read(accepted)
                    accepted.sendall(answer)
                    _read(client)


def _read(sock: socket.socket) -> None:
    """What the other side has said: one piece, as it was sent."""
    while not (data := sock.recv(4096)).endswith(b"\n"):
        if not data:
            raise EOFError
