"""What the demo sends, which ways it takes, and what must come of it: values only."""

from __future__ import annotations

from dataclasses import dataclass

from proxsmtp_tp.lab import network

GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
"""The test string that scanners refuse (https://spamassassin.apache.org/gtube/)."""
SENDER, RECIPIENT = "alice@sender.example", "bob@mx.example"


@dataclass(frozen=True, slots=True)
class Way:
    """The addresses of one IP version: the client's, the gateway's towards the server, the server's."""

    name: str
    client: str
    gateway: str
    server: str


WAYS = (
    Way("IPv4", network.SENDER_V4, network.WAN_V4, network.MX_V4),
    Way("IPv6", network.SENDER_V6, network.WAN_V6, network.MX_V6),
)


@dataclass(frozen=True, slots=True)
class Setup:
    """One way to run a gateway: RuleMode and TransparentProxy."""

    mode: str
    transparency: str

    @property
    def whose(self) -> str:
        """Whose address the MX sees."""
        return "gateway" if self.transparency == "client" else "sender"

    @property
    def name(self) -> str:
        """A part of a file name."""
        return f"{self.mode}-{self.transparency}"

    def seen(self, way: Way) -> str:
        """The address that the MX must see."""
        return way.gateway if self.whose == "gateway" else way.client


SETUPS = tuple(Setup(mode, who) for mode in ("redirect", "tproxy") for who in ("client", "full"))


@dataclass(frozen=True, slots=True)
class Mail:
    """A message and the filter's verdict on it; `reply` is the client's where the filter gives it."""

    title: str
    subject: str
    verdict: str
    header: str = ""
    body: str = "Shall we meet at noon?\n.\nThat was a line with a lone dot.\n"
    reply: str = ""

    @property
    def octets(self) -> bytes:
        """What the author wrote."""
        text = f"From: <{SENDER}>\nTo: <{RECIPIENT}>\nSubject: {self.subject}\n{self.header}\n{self.body}"
        return text.replace("\n", "\r\n").encode()

    @staticmethod
    def mark(way: Way) -> str:
        """The header that the sample filter puts above a mail that it passes."""
        return f"X-Filter: passed; client={way.client}; server={way.server}; sender={SENDER}"


MAILS = (
    Mail("a good mail", "lunch", "pass"),
    Mail(
        "the GTUBE test string",
        "offer",
        "reject",
        body=f"{GTUBE}\n",
        reply="550 5.7.1 This is the GTUBE test string: refused by the filter",
    ),
    Mail(
        "a mail with X-Filter-Action: discard",
        "noise",
        "discard",
        header="X-Filter-Action: discard\n",
        reply="250 2.0.0 Discarded by the filter, as the message asked",
    ),
)
