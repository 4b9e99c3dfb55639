"""smtplib from inside a host of the lab, with commands and messages sent exactly as they are given (RFC 5321)."""

from __future__ import annotations

import smtplib
from typing import TYPE_CHECKING

from proxsmtp_tp.lab.network import LabError

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from proxsmtp_tp.lab.network import Host

SECONDS = 30.0
"""For each reply: well above what a busy machine needs for one filter run."""


class Client(smtplib.SMTP):
    """Connected when made: `greeting` holds the server's first line. Addresses and parameters go out as UTF-8.

    Raises OSError where there is no connection, LabError where the greeting is not 220.
    """

    def __init__(self, host: Host, address: str, port: int = 25, name: str = "sender.example") -> None:
        self._inside = host
        super().__init__(local_hostname=name, timeout=SECONDS)
        self.greeting = reply_text(*self.connect(address, port))
        self.command_encoding = "utf-8"
        if not self.greeting.startswith("220 "):
            self.close()
            raise LabError(f"{address} port {port} greeted with {self.greeting}")

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self._inside.connect(host, port, timeout)

    def submit(
        self,
        sender: str,
        recipients: Sequence[str],
        octets: bytes,
        mail_options: Sequence[str] = (),
        rcpt_options: Sequence[str] = (),
    ) -> str:
        """One transaction. The reply to the message; raises LabError if a step before it is refused.

        `octets` end with CR LF. They are sent as they are, dots stuffed.
        """
        steps = [" ".join([f"MAIL FROM:<{sender}>", *mail_options])]
        steps += [" ".join([f"RCPT TO:<{recipient}>", *rcpt_options]) for recipient in recipients]
        for step in steps:
            code, text = self.docmd(step)
            if code != 250:
                raise LabError(f"{step}: {reply_text(code, text)}")
        try:
            return reply_text(*self.data(octets))
        except smtplib.SMTPDataError as error:
            raise LabError(f"DATA: {reply_text(error.smtp_code, error.smtp_error)}") from error


def reply_text(code: int, text: bytes | str) -> str:
    """A reply on one line for people."""
    words = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text
    return f"{code} {' / '.join(words.splitlines())}"
