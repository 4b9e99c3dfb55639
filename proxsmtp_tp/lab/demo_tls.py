"""The part of the demo with TLS: one mail is judged (`Tls: terminate`), one passes (`Tls: pass`).

The MX has a certificate of a CA of the lab. The gateway knows this CA, and makes one of its own. The sender trusts
both, and verifies: it accepts the gateway's certificate for mx.example only because the gateway has verified the MX.
"""

from __future__ import annotations

import datetime as dt
import ssl
from typing import TYPE_CHECKING

from proxsmtp_tp.certificates import authority
from proxsmtp_tp.certificates.leaf import LeafKey, mint
from proxsmtp_tp.certificates.libraries import MissingLibraryError
from proxsmtp_tp.certificates.pem import certificates_of
from proxsmtp_tp.lab.client import Client, reply_text
from proxsmtp_tp.lab.mx import Arrived, Closed, Commanded, Connected, Secured
from proxsmtp_tp.lab.network import MX_V6, LabError
from proxsmtp_tp.lab.scenario import RECIPIENT, SENDER
from proxsmtp_tp.lab.screen import printable

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.lab.gateway import Instance
    from proxsmtp_tp.lab.mx import Journal
    from proxsmtp_tp.lab.network import Host
    from proxsmtp_tp.lab.scenario import Mail, Setup, Way
    from proxsmtp_tp.lab.screen import Screen

SECONDS = 10.0
"""Seconds for a step that takes milliseconds, so that it is enough on a busy machine."""
LIBRARY = "python3-cryptography"
MX = "mx.example"
CA = "the CA of the demo's MX"


def expect(condition: bool, otherwise: str) -> None:
    """Raise LabError if something shown is not as it must be."""
    if not condition:
        raise LabError(otherwise)


def make_certificate(directory: Path) -> Path | None:
    """The MX's chain with its key, in one file, and its CA beside it; None: the library is not installed."""
    now = dt.datetime.now(dt.UTC)
    try:
        ca, key = authority.make(CA, now)
        made = mint(authority.read(ca, key, CA, now), (MX,), LeafKey(), now)
    except MissingLibraryError:
        return None
    _ca_file(directory).write_bytes(ca)
    file = directory / "mx.pem"
    file.touch(0o600)
    file.write_bytes(made.chain + made.key)
    return file


def _ca_file(directory: Path) -> Path:
    return directory / "mx-ca.pem"


def directives(directory: Path) -> dict[str, str]:
    """What the gateway's configuration has in addition."""
    return {
        "Tls": f"pass server={MX_V6}\nTls: terminate",
        "UpstreamTls": "verify",
        "UpstreamCaFile": str(_ca_file(directory)),
    }


class Ends:
    """The sender, what the MX has told, and the gateway between them."""

    def __init__(self, sender: Host, journal: Journal, instance: Instance, setup: Setup) -> None:
        self.sender = sender
        self.journal = journal
        self.instance = instance
        self.setup = setup

    @property
    def trusted(self) -> ssl.SSLContext:
        """What the sender trusts: the MX's CA, and the one that `tls-ca export` gives."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(_ca_file(self.instance.directory))
        context.load_verify_locations(self.instance.state / "tls" / "ca.pem")
        return context


def show(page: Screen, ends: Ends, way: Way, mail: Mail, *, judged: bool) -> None:
    """One mail by STARTTLS, shown and checked."""
    logged, start = len(ends.instance.log), len(ends.journal.events)
    page.line()
    page.line(f"   {page.paint('strong', f'{way.name}, {mail.title} by STARTTLS')}")
    tls, issuer, reply = _send(ends, way, mail)
    page.hop("sender", f"{way.client} calls {way.server} port 25: {tls}, a certificate for {MX}")
    page.more(page.paint("quiet", f"verified, signed by: {printable(issuer)}"))
    if judged:
        page.hop("gateway", f"TLS with both; the filter's verdict: {page.paint('good', 'pass')}")
    else:
        page.hop("gateway", f"the sender's TLS passes: {page.paint('mx', 'not judged')}")
    page.more(page.paint("quiet", f"log: {printable(_log_line(ends.instance, logged, judged=judged))}"))
    connected, said, arrived = _at_the_mx(ends.journal, start)
    page.hop("mx", f"{connected.peer}, the {ends.setup.whose}, calls: {' '.join(said)}")
    page.hop("mx", "has the message, byte for byte" + (", below one new header:" if judged else ", as it was sent"))
    if judged:
        page.more(page.paint("good", printable(arrived.content.partition("\r\n")[0])))
    page.hop("sender", f"{page.paint('good', printable(reply))}   (said the MX)")

    wanted = f"{mail.mark(way)}\r\n".encode() + mail.octets if judged else mail.octets
    expect(arrived.octets == wanted, f"the message arrived changed: {arrived.octets!r}")
    expect(reply == arrived.reply, f"the sender got {reply!r} instead of {arrived.reply!r}")
    expect((CA in issuer) is not judged, f"the sender saw a certificate of {issuer}")
    clear = said[: next((place for place, word in enumerate(said) if word.startswith("TLS")), None)]
    expect(clear == ["EHLO"], f"before TLS the MX saw {clear}")


def _send(ends: Ends, way: Way, mail: Mail) -> tuple[str, str, str]:
    """Version and cipher of the sender's TLS, who has signed the certificate, and the reply."""
    with Client(ends.sender, way.server) as client:
        client.ehlo()
        client._host = MX  # type: ignore[attr-defined]  # noqa: SLF001 - the name in the hello, in place of the address
        code, text = client.starttls(context=ends.trusted)
        expect(code == 220, f"STARTTLS: {reply_text(code, text)}")
        client.ehlo()
        sock = client.sock
        if not isinstance(sock, ssl.SSLSocket):
            raise LabError("STARTTLS without TLS")
        cipher, certificate = sock.cipher(), sock.getpeercert(binary_form=True) or b""
        tls = f"{sock.version()}, {cipher[0] if cipher else ''}"
        return tls, _issuer(certificate), client.submit(SENDER, [RECIPIENT], mail.octets)


def _issuer(certificate: bytes) -> str:
    """The common name of who has signed it."""
    found = certificates_of(ssl.DER_cert_to_PEM_cert(certificate).encode(), "the certificate")[0].issuer
    return next((str(each.value) for each in found if each.rfc4514_string().startswith("CN=")), "")


def _log_line(instance: Instance, start: int, *, judged: bool) -> str:
    """What the daemon's log says of this mail: the part that is about TLS."""
    text = "status=" if judged else "TLS passed on, not judged"
    expect(instance.wait_log(text, start, SECONDS), f"the daemon's log has no {text!r}")
    line = next(line for line in instance.log[start:].splitlines() if text in line)
    if not judged:
        return line[line.index(text) :].partition(", sni=")[0]
    fields = dict(each.split("=", 1) for each in line.split(", ") if "=" in each)
    return ", ".join(f"{name}={fields[name]}" for name in ("status", "client_tls", "server_tls"))


def _at_the_mx(journal: Journal, start: int) -> tuple[Connected, list[str], Arrived]:
    """Who called, the verbs with the version of TLS where it began, and the message."""
    ended = journal.wait(lambda known: any(isinstance(event, Closed) for event in known.events[start:]), SECONDS)
    events = journal.events[start:]
    connected = [event for event in events if isinstance(event, Connected)]
    arrived = [event for event in events if isinstance(event, Arrived)]
    expect(
        ended and len(connected) == len(arrived) == 1, f"the MX saw {len(connected)} connections, {len(arrived)} mails"
    )
    said = []
    for event in events:
        if isinstance(event, Commanded):
            said.append(event.line.split()[0])
        elif isinstance(event, Secured):
            said.append(f"{event.version}:")
        elif isinstance(event, Arrived):
            said.append("DATA")
    return connected[0], said, arrived[0]
