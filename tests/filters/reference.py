"""The message and the edits that are compared with reference MTAs: the same milter behind them and behind ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

FIELDS = b"A: 1\r\nB:2\r\nA:  3\r\n\t4\r\n  5\r\nC:\t6\r\nSubject: hello\r\n"
MESSAGE = (
    FIELDS
    + b"From: a@example.org\r\nDate: Sat, 28 Nov 2026 09:00:00 +0000\r\nMessage-ID: <1@x>\r\n\r\nbody\r\n.\r\nend\r\n"
)
EDITS: list[list[list[Any]]] = [
    [],
    [["addheader", "X", "y"]],
    [["addheader", "X", "y\n\tz"]],
    [["addheader", "X", "y", 1]],
    [["addheader", "X", "y", 2]],
    [["addheader", "X", "y", 4]],
    [["addheader", "X", "1", 1], ["addheader", "X", "2", 1], ["addheader", "X", "3"]],
    [["addheader", "X", "y", 2147483647]],
    [["chgheader", "a", 2, "new"]],
    [["chgheader", "A", 1, "new\n folded"]],
    [["chgheader", "C", 1, ""]],
    [["chgheader", "A", 1, ""]],
    [["chgheader", "A", 9, "new"]],
    [["chgheader", "D", 1, ""]],
    [["chgheader", "A", 2, ""], ["chgheader", "A", 1, ""]],
    [["chgheader", "Subject", 1, "new"], ["addheader", "Subject", "second"]],
    [["replacebody", "new\r\n.\r\nbody\r\n"]],
]
"""Calls of libmilter at the end of the message."""


def send_message(link: socket.socket, text: bytes) -> bytes:
    """Give the MTA the message; its last reply."""
    stuffed = re.sub(rb"(?m)^\.", b"..", text)
    with link.makefile("rb") as replies:
        reply = replies.readline()
        commands = (b"EHLO client.example\r\n", b"MAIL FROM:<a@example.org>\r\n", b"RCPT TO:<b@example.org>\r\n")
        for command in (*commands, b"DATA\r\n", stuffed + b".\r\n"):
            link.sendall(command)
            reply = replies.readline()
            while reply[3:4] == b"-":
                reply = replies.readline()
            if reply[:1] not in b"23":
                break
        link.sendall(b"QUIT\r\n")
    return reply
