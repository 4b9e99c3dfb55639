"""A milter without libmilter, which needs no package: it reads each message, and accepts it at its end.

It asks for the same events as accepting_milter.c. Usage: python scripted_milter.py SOCKET; it writes a line when it
listens.
"""

from __future__ import annotations

import socket
import struct
import sys
from threading import Thread

STEPS = 0x1 | 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200 | 0x80000
"""No CONNECT, HELO, MAIL, RCPT, end of header, unknown command, DATA; no answer to header and body."""
OPTIONS = struct.pack(">IcIII", 13, b"O", 6, 0, STEPS)
ACCEPT = struct.pack(">Ic", 1, b"a")


def serve(peer: socket.socket) -> None:
    """Answer on one connection until its end."""
    had = b""
    while data := peer.recv(65536):
        had += data
        while len(had) >= 5 and len(had) >= (end := 4 + int.from_bytes(had[:4], "big")):
            code, had = had[4:5], had[end:]
            if code == b"O":
                peer.sendall(OPTIONS)
            elif code == b"E":
                peer.sendall(ACCEPT)


listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("listens", flush=True)
while True:
    Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
