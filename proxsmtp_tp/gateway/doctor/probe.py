"""The probe: real mails from a temporary client through the installed rules and the daemon, by each IP version.

The first mail is bare: some filters refuse it. The second is one that a filter should pass. `prober` sends them; this
module makes findings of its report, hop by hop. The probe's mails come in by an interface of their own. Through each
client interface a mail is sent only in a copy of the host (`firewall`), because nothing may be changed on these
interfaces.

Where the Tls lines terminate or pass, a mail follows by STARTTLS, and one by TLS from the first octet (`probe_tls`).

A refusal with an SMTP code of the filter's own is a finding of its own kind: kept. A refusal that the proxy made, or a
filter that failed, is wrong.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import asdict
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.certificates.libraries import MissingLibraryError
from proxsmtp_tp.config.settings import TransparentProxy
from proxsmtp_tp.gateway import check, routing
from proxsmtp_tp.gateway.doctor import firewall, probe_tls, verdicts
from proxsmtp_tp.gateway.doctor.findings import Finding, Setup, State, unseen
from proxsmtp_tp.gateway.doctor.mail_peers import BARE, ORDINARY
from proxsmtp_tp.gateway.doctor.prober import CLIENT, HOST_TO_CLIENT, HOST_TO_SERVER, NARROW_MTU, SERVER
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.python import module_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.gateway.doctor.probe_tls import ServerCertificate
    from proxsmtp_tp.tls.policy import Decision

STEP_SECONDS = 6.0
"""For one step of a mail dialogue. A filter that needs longer for a mail of a few lines is too slow for real mail."""
_SESSIONS = 6
"""Sessions, one after the other: two mails, two by TLS, a long reply, a long mail. Each ends at the first step without
an answer."""
_SPARE_SECONDS = 20.0  # the start of five processes on a busy host


def probe(setup: Setup) -> Iterator[Finding]:
    """Send the mails; a finding for each hop. Raises GatewayError if there can be no probe."""
    if not check.examine(setup.plan).in_place:
        yield Finding("probe", False, "there is nothing to test before the rules are in place")
        return
    yield from firewall.look_at_rule_paths(setup)
    try:
        certificate = probe_tls.make_certificate() if setup.settings.tls or setup.settings.upstream_tls else None
    except MissingLibraryError as error:
        yield unseen("probe, TLS", f"no mail is sent by TLS: {error}")
        certificate = None
    ways = {name: _Way(setup, name, certificate) for name in _names(setup)}
    if setup.probe_port is None and not any(way.kinds for way in ways.values()):
        text = "no mail is sent: on each intercepted port TLS begins with the first octet (TlsWrapped)"
        yield unseen("probe", f"{text}, and no Tls line terminates or passes it")
        return
    reports = _send(setup, ways, certificate)
    answered = setup.status()
    for name, report in reports.items():
        yield from ways[name].findings(report, answered)


def _names(setup: Setup) -> list[str]:
    """The ways, as `prober` calls them."""
    versions = routing.versions()
    return [f"{v}{own}" for own in (("", " local") if setup.plan.options.local else ("",)) for v in versions]


def _send(setup: Setup, ways: dict[str, _Way], certificate: ServerCertificate | None) -> dict[str, Any]:
    looped = setup.settings.loopback
    ordinary = ORDINARY.format(date=formatdate(localtime=True), id=f"doctor.{time.time_ns():x}")
    job = {
        "client_link": setup.plan.numbers.probe,
        "server_link": f"pxserve{setup.plan.numbers.slot}",
        "port": setup.probe_port or 0,
        "reply_port": setup.settings.out_address.port if looped else 0,  # type: ignore[union-attr]
        "messages": [BARE, ordinary] if setup.settings.transparent or looped else [""],
        "versions": routing.versions(),
        "local": setup.plan.options.local,
        "seconds": STEP_SECONDS,
        "certificate": asdict(certificate) if certificate else None,
        "wrapped_port": (probe_tls.wrapped_port(setup) or 0) if certificate else 0,
        "tls_mails": {name: probe_tls.mails(way.kinds, ordinary) for name, way in ways.items()},
    }
    done = subprocess.run(
        module_command("proxsmtp_tp.gateway.doctor.prober"),
        input=json.dumps(job), capture_output=True, text=True, check=False,
        timeout=2 * _SESSIONS * STEP_SECONDS + _SPARE_SECONDS,
    )  # fmt: skip
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise GatewayError(f"the probe could not be made: {reason}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class _Way:
    """One way: from the temporary client, or from this host itself; by an IP version. `name`: see `prober`.

    `kinds`: the mails by TLS, see `probe_tls.kinds`.
    """

    def __init__(self, setup: Setup, name: str, certificate: ServerCertificate | None) -> None:
        version, _, local = name.partition(" ")
        self._setup = setup
        self._version = int(version)
        self._certificate = certificate
        self._answered: dict[str, Any] | None = None
        self._step = f"probe, {'own mail, ' if local else ''}IPv{version}"
        self._source = (HOST_TO_SERVER if local else CLIENT)[self._version]
        self._local = local
        self._server = SERVER[self._version]
        seen = certificate is not None and setup.settings.transparent
        self.kinds = list(probe_tls.kinds(setup, self._source, self._server)) if seen else []

    def findings(self, report: dict[str, Any], answered: dict[str, Any] | None) -> Iterator[Finding]:
        """`report` is the prober's, for this way; `answered` the daemon's status."""
        self._answered = answered
        mails = [mail for mail in report["mails"] if not mail["tls"]]
        yield from self._in_clear(mails, report)
        by_tls = [mail for mail in report["mails"] if mail["tls"]]
        if self._certificate is not None:
            for mail, (_, _, decision) in zip(by_tls, self.kinds, strict=False):
                yield from self._by_tls(mail, decision, self._certificate)

    def _in_clear(self, mails: list[dict[str, Any]], report: dict[str, Any]) -> Iterator[Finding]:
        if not mails:
            return
        first, *more = mails
        way = f"client {self._source} to {self._server} port {self._setup.probe_port}"
        if not first["greeting"]:
            text = f"{way}: no greeting within {STEP_SECONDS:.0f} s ({first.get('error', 'closed')})"
            hint = f": the rules, the firewall for interface {self._setup.plan.numbers.probe}, or the daemon's listener"
            yield Finding(self._step, False, text + hint)
            return
        if any(record["peer"] == first["own"] for record in first["seen"]):
            why = "no heartbeat (RuleFail open), or rules of another program"
            text = f"{way}: reached the server without the daemon: {why}"
            yield Finding(self._step, False, text)
            return
        yield Finding(self._step, True, f"{way}: the daemon greets, {first['greeting']}")
        if first["greeting"].startswith(("4", "5")):
            yield Finding(self._step, False, f"and refuses to relay: {first['greeting']}")
            return
        found = [*self._call(first), *self._mail(first, "bare mail")]
        for mail in more:
            found += self._mail(mail, "ordinary mail")
        yield from found
        if found[-1].state is State.KEPT:
            yield unseen(self._step, "the filter keeps an ordinary mail, too: whether mail passes it is not proven")
        yield from _narrow_links(self._version, report)

    def _by_tls(self, mail: dict[str, Any], decision: Decision, own: ServerCertificate) -> Iterator[Finding]:
        what = "STARTTLS" if mail["tls"] == probe_tls.STARTTLS else f"TLS on port {mail['port']}"
        step = f"{self._step}, {what}"
        failed = list(probe_tls.handshake(self._setup, step, mail, decision))
        if failed or "version" not in mail:
            yield from failed or self._mail(mail, f"mail by {what}")
            return
        yield probe_tls.shown(self._setup, step, mail, decision, own)
        if any(record["message"] and not record["tls"] for record in mail["seen"]):
            yield Finding(step, False, "the mail came to the server in clear: report this as a fault of proxsmtp-tp")
        yield from self._mail(mail, f"mail by {what}")

    def _call(self, mail: dict[str, Any]) -> Iterator[Finding]:
        """Whether the daemon connected to the server, from the address that it should use."""
        settings = self._setup.settings
        if mail["seen"]:
            source = mail["seen"][-1]["peer"][0]
            wanted = self._expected_source()
            text = f"the daemon connects to the server from {source}"
            yield Finding(self._step, source == wanted, text + ("" if source == wanted else f" instead of {wanted}"))
        elif settings.transparent or settings.loopback:
            yield Finding(
                self._step, False, f"the daemon made no connection to the server: {mail.get('error') or mail['reply']}"
            )

    def _expected_source(self) -> str:
        if self._setup.settings.transparent_proxy is TransparentProxy.FULL:
            return self._source
        return (HOST_TO_CLIENT if self._setup.settings.loopback else HOST_TO_SERVER)[self._version]

    def _mail(self, mail: dict[str, Any], what: str) -> Iterator[Finding]:
        took = ", ".join(f"{step} {seconds:.2f} s" for step, seconds in mail["seconds"].items())
        step, reply = f"{self._step}, {what}", mail["reply"]
        if "error" in mail:
            yield Finding(step, False, self._broke_off(mail) + f" ({took})")
            return
        if (by_level := probe_tls.refused(self._setup, step, mail)) is not None:
            yield by_level
            return
        if mail["step"] != "DATA":
            refused = reply[:1] in {"4", "5"}
            yield Finding(step, not refused, f"the server behind it answers {mail['step']}: {reply} ({took})")
            return
        arrived = next((record["message"] for record in mail["seen"] if record["message"]), "")
        if not reply.startswith("2"):
            yield self._refused(step, mail, arrived, took)
        elif not arrived:
            kept = verdicts.of_client(self._answered, self._source, mail)
            why = f", {kept['reason']}" if kept else ""
            yield Finding(step, False, f"the filter discarded the mail: {reply}{why} ({took})", other=State.KEPT)
        else:
            change = "unchanged" if arrived == mail["message"] else "changed by the gateway"
            yield Finding(step, True, f"the mail arrived, {change}: {reply} ({took})")

    def _refused(self, step: str, mail: dict[str, Any], arrived: str, took: str) -> Finding:
        kept, reply = verdicts.of_client(self._answered, self._source, mail), mail["reply"]
        if arrived:
            return Finding(step, False, f"the mail arrived, but was also refused: {reply} ({took})")
        own = kept["coded"] if kept else self._setup.may_be_a_filters(reply)
        if own:
            text = f"the filter refused the mail, which was not delivered: {reply} ({took})"
            return Finding(step, False, text, other=State.KEPT)
        why = kept["reason"] if kept else "the log says why"
        return Finding(step, False, f"the mail was refused, and not by the filter's own code: {reply}; {why} ({took})")

    def _broke_off(self, mail: dict[str, Any]) -> str:
        if mail["silent"] and mail["at"] == "DATA" and self._setup.settings.filtered:
            timeout = self._setup.settings.filter_timeout
            return f"the filter has not judged the mail within {STEP_SECONDS:.0f} s (FilterTimeout is {timeout:g} s)"
        return f"the dialogue broke off at {mail['at']}: {mail['error']}"


def _narrow_links(version: int, report: dict[str, Any]) -> Iterator[Finding]:
    """Whether ICMP errors about links with a smaller MTU reach the daemon: a long mail and a long reply must arrive."""
    if "long_mail" not in report:
        return
    step, link = f"path MTU, IPv{version}", f"a link with an MTU of {NARROW_MTU}"
    cause = "what its router reports (ICMP) does not reach the daemon: a firewall drops it here"
    mail = report["long_mail"]
    if any(record["message"] for record in mail["seen"]):
        yield Finding(step, True, f"a long mail passes {link} towards the server")
    elif "error" in mail:
        text = f"a long mail does not pass {link} towards the server ({mail['error']}): {cause}"
        yield Finding(step, False, text)
    else:
        yield Finding(step, False, f"not proven: the long mail was refused: {mail['reply']}", other=State.KEPT)
    if report["long_reply"] == "silence":
        yield Finding(step, False, f"a long reply does not pass {link} towards the client: {cause}")
    elif report["long_reply"] == "arrived":
        yield Finding(step, True, f"a long reply passes {link} towards the client")
