"""The fixed dialogue whose instructions are counted (`instructions`)."""

from __future__ import annotations

MESSAGES = 10
"""Messages in one dialogue."""

_HEADER = b"From: a@example.org\r\nTo: b@example.net\r\nMessage-Id: <1@example.org>\r\nSubject: instructions\r\n\r\n"
_LINE = b"The quick brown fox jumps over the lazy dog, and then it jumps over it.\r\n"
TEXT = (_HEADER + _LINE * 12)[:1000].rpartition(b"\r\n")[0] + b"\r\n.\r\n"

GREETED = (
    (b"", b"220 mx.example.net ESMTP\r\n"),
    (b"EHLO client.example.org\r\n", b"250-mx.example.net\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 10240000\r\n"),
)
SENT = (
    (b"MAIL FROM:<a@example.org>\r\n", b"250 2.1.0 Ok\r\n"),
    (b"RCPT TO:<b@example.net>\r\n", b"250 2.1.5 Ok\r\n"),
    (b"DATA\r\n", b"354 End data with <CR><LF>.<CR><LF>\r\n"),
    (TEXT, b"250 2.0.0 Ok: queued as 4XyZ12ab\r\n"),
)
LEFT = ((b"QUIT\r\n", b"221 2.0.0 Bye\r\n"),)
DIALOGUE = (*GREETED, *SENT * MESSAGES, *LEFT)
"""What the client sends, and what the server answers."""
