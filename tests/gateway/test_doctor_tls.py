"""doctor's probe by TLS: STARTTLS on port 25, TLS from the first octet on port 465, a real daemon. Each fault is
staged: it has its own finding, and what that says fixes it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.certificates import libraries
from proxsmtp_tp.cli.doctor_daemon import status_of
from proxsmtp_tp.gateway.doctor.findings import State
from tests.gateway.daemon_host import DaemonHost
from tests.tls.daemon import certificate_files
from tests.typed_fixes import types

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxsmtp_tp.gateway.doctor.findings import Finding

TLS = {"Tls": "terminate", "TlsWrapped": "465", "RulePort": "25, 465", "TransparentProxy": "client"}
WAYS = [f"probe, IPv{version}, {what}" for version in (4, 6) for what in ("STARTTLS", "TLS on port 465")]
MAILS = [re.sub("(STARTTLS|TLS on)", r"mail by \1", way) for way in WAYS]
VERSION = r"TLSv1\.3, TLS_\w+, "
UNTRUSTED = "a certificate of the CA that nobody trusts, because nobody knows the probe's server"
SERVERS = "the certificate of the probe's server itself"
NO_TLS_TO_SERVERS = """table inet way {{
    chain out {{
        type filter hook output priority 0;
        oifname "{link}" meta l4proto tcp @th,256,16 0x1603 reject with tcp reset
    }}
}}
"""
"""A packet to the server whose data begin as a TLS handshake does, behind the 32 octets of a TCP header with times."""


@pytest.fixture(autouse=True)
def _state(host: DaemonHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """doctor looks for the CAs where the daemon has them."""
    monkeypatch.setenv("STATE_DIRECTORY", str(host.instance.state))


@pytest.fixture(scope="module")
def host() -> Iterator[DaemonHost]:
    """A gateway that terminates TLS."""
    with closing(DaemonHost(**TLS)) as found:
        yield found


def probe(host: DaemonHost) -> dict[str, list[Finding]]:
    """The findings of the probe, by their steps."""
    found: dict[str, list[Finding]] = {}
    for finding in host.probe():
        found.setdefault(finding.step, []).append(finding)
    return found


def wrong(found: dict[str, list[Finding]]) -> dict[str, Finding]:
    """What is wrong: one finding for a step."""
    return {step: each for step, findings in found.items() for each in findings if each.wrong}


@contextmanager
def configured(host: DaemonHost, **lines: str) -> Iterator[None]:
    """The daemon runs with other lines."""
    before = host.instance.directives
    host.instance.directives = {**before, **lines}
    host.restart()
    try:
        yield
    finally:
        host.instance.directives = before
        host.restart()


@pytest.mark.parametrize(("method", "mode", "transparency", "more"), [
    ("nftables", "redirect", "client", {"RuleLocal": "yes"}), ("nftables", "tproxy", "full", {}),
    ("iptables", "redirect", "full", {}), ("iptables", "tproxy", "client", {}),
])  # fmt: skip
def test_terminated(
    method: str, mode: str, transparency: str, more: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version, cipher, whose certificate, and that the mail arrived, judged; the host's own mail, too."""
    told = TLS | {"RuleMethod": method, "RuleMode": mode, "TransparentProxy": transparency} | more
    with closing(DaemonHost(**told)) as host:
        monkeypatch.setenv("STATE_DIRECTORY", str(host.instance.state))
        found = probe(host)
        assert all(each.ok for findings in found.values() for each in findings), found
        own = [step.replace("probe, ", "probe, own mail, ") for step in (*WAYS, *MAILS)] if more else []
        assert {step for step in found if "TLS" in step} == {*WAYS, *MAILS, *own}
        for step in WAYS:
            text = found[step][0].text
            assert re.fullmatch(rf"{VERSION}{UNTRUSTED}, as the file says: terminate \(Tls: terminate\)", text)
        for step in MAILS:
            assert found[step][0].text.startswith("the mail arrived, unchanged: 250 ok (greeting "), found[step]
        log = host.instance.log
        assert log.count("status=FILTERED") >= len(MAILS)
        assert "client_tls=TLSv1.3, server_tls=TLSv1.3/unverified" in log


def test_passed(host: DaemonHost) -> None:
    with configured(host, Tls="pass"):
        found = probe(host)
        assert wrong(found) == {}
        assert [re.sub(VERSION, "", found[step][0].text) for step in WAYS] == 4 * [
            f"{SERVERS}, as the file says: pass (Tls: pass)"
        ]
        assert all(found[step][0].text.startswith("the mail arrived, unchanged") for step in MAILS)


@pytest.mark.parametrize("lines", ["strip", "refuse"])
def test_no_mail_by_tls_where_it_is_not_wanted(host: DaemonHost, lines: str) -> None:
    with configured(host, Tls=f"{lines} port=25\nTls: refuse"):
        found = probe(host)
        assert wrong(found) == {}
        assert [step for step in found if "TLS" in step] == []


def test_only_tls_from_the_first_octet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No port is left for mails in clear."""
    with closing(DaemonHost(**TLS | {"RulePort": "465"})) as host:
        monkeypatch.setenv("STATE_DIRECTORY", str(host.instance.state))
        found = probe(host)
        assert wrong(found) == {}
        assert [step for step in found if step.startswith("probe")] == [WAYS[1], MAILS[1], WAYS[3], MAILS[3]]


@types("TLS is not as the file says")
@pytest.mark.parametrize(("in_force", "file", "text"), [
    ("pass", "terminate", f"{SERVERS}; with terminate (Tls: terminate) it must be {UNTRUSTED}: the daemon does not"),
    ("terminate", "pass", f"{UNTRUSTED}; with pass (Tls: pass) it must be {SERVERS}: the daemon does not run"),
    ("strip port=25\nTls: terminate", "terminate", "the client sees no STARTTLS, which the server offers"),
    ("refuse port=25\nTls: terminate", "terminate", "STARTTLS is refused; the file says terminate (Tls: terminate): 5"),
])  # fmt: skip
def test_the_daemon_does_not_run_with_this_file(host: DaemonHost, in_force: str, file: str, text: str) -> None:
    """The fix is typed: then the probe finds nothing wrong."""
    with configured(host, Tls=in_force):
        kept = [line for line in host.instance.config.read_text().splitlines() if not line.startswith("Tls:")]
        host.instance.config.write_text("\n".join([*kept, f"Tls: {file}"]) + "\n")
        found = wrong(probe(host))
        assert found, in_force
        assert set(found) <= set(WAYS), found
        assert {WAYS[0], WAYS[2]} <= set(found)
        for finding in found.values():
            assert text in finding.text
        host.type(found[WAYS[0]].fix)
        assert wrong(probe(host)) == {}


@types("TLS is not as the file says")
def test_the_certificate_of_the_file_is_not_shown(host: DaemonHost, tmp_path: Path) -> None:
    """It was renewed, and the daemon has the old one."""
    chain, key = certificate_files(host.folder)
    with configured(host, TlsCertificate=f"{chain} {key}"):
        found = probe(host)
        assert wrong(found) == {}
        assert all("the certificate of TlsCertificate, as the file says" in found[step][0].text for step in WAYS)
        renewed = certificate_files(tmp_path, "new.example")
        for new, old in zip(renewed, (chain, key), strict=True):
            with open(new, "rb") as source, open(old, "wb") as target:  # noqa: PTH123
                target.write(source.read())
        found = probe(host)
        assert set(wrong(found)) == set(WAYS)
        text = "the daemon has read another certificate"
        assert all(
            "a certificate of somebody else; " in each.text and text in each.text for each in wrong(found).values()
        )
        host.type(wrong(found)[WAYS[0]].fix)
        assert wrong(probe(host)) == {}


@types("minting process is stopped")
def test_the_minting_process_is_stopped(host: DaemonHost) -> None:
    """No certificate is made: the handshake ends with an alert. doctor names the process."""
    host.restart()  # the daemon has no certificate for the probe's server yet
    status = status_of("setup")
    assert status is not None
    os.kill(status["minting"], signal.SIGSTOP)
    try:
        found = wrong(probe(host))
        assert set(found) == set(WAYS)
        assert all("the TLS handshake failed: the alert internal error came" in each.text for each in found.values())
        (finding,) = (each for each in host.examine() if each.step == "minting process")
        assert "is stopped by a signal: TLS with clients fails" in finding.text
        host.type(finding.fix)
    finally:
        os.kill(status["minting"], signal.SIGCONT)
    assert wrong(probe(host)) == {}
    assert "minting process" not in [each.step for each in host.examine()]


def test_tls_to_servers_is_broken(host: DaemonHost) -> None:
    """A program on the way resets connections that begin TLS: with client and server in TLS or in clear."""
    host.restart()
    link = f"pxserve{host.setup().plan.numbers.slot}"
    host.run(f"nft -f - <<'END'\n{NO_TLS_TO_SERVERS.format(link=link)}END")
    try:
        found = wrong(probe(host))
    finally:
        host.run("nft delete table inet way")
    assert {MAILS[0], MAILS[2]} <= set(found), found
    text = "the daemon refuses the server, which has TLS (UpstreamTls: may): 421 4.7.5"
    assert all(text in found[MAILS[each]].text and "breaks TLS" in found[MAILS[each]].text for each in (0, 2)), found
    assert wrong(probe(host)) == {}


def test_a_level_that_verifies(host: DaemonHost) -> None:
    """Nobody knows the probe's server: it is refused, as the level says, by TLS and in clear."""
    with configured(host, UpstreamTls="secure match=mx.example"):
        found = probe(host)
        assert wrong(found) == {}
        clear = [f"probe, IPv{version}, {mail} mail" for version in (4, 6) for mail in ("bare", "ordinary")]
        for step in (*MAILS, *clear):
            assert "as UpstreamTls: secure match=mx.example says: 4" in found[step][0].text, found[step]
            assert "whether mail passes is not proven" in found[step][0].text
    with configured(host, UpstreamTls="encrypt"):
        found = probe(host)
        assert wrong(found) == {}
        assert all(found[step][0].text.startswith("the mail arrived") for step in (*MAILS, *clear))


def test_the_resolver_is_silent(host: DaemonHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxsmtp_tp.gateway.doctor.probe_tls.TLS_SECONDS", 30.0)
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 127.0.0.53\n")  # nobody listens there
    subprocess.run(["mount", "--bind", file, "/etc/resolv.conf"], check=True)
    try:
        with configured(host, UpstreamTls="dane"):
            found = wrong(probe(host))
    finally:
        subprocess.run(["umount", "/etc/resolv.conf"], check=True)
    assert set(found) == set(MAILS), found
    assert all("the resolver in /etc/resolv.conf must answer" in each.text for each in found.values())


def test_without_the_library(host: DaemonHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, purpose: str) -> None:
        raise libraries.MissingLibraryError(f"{purpose} needs {name}")

    monkeypatch.setattr("proxsmtp_tp.certificates.authority.load", missing)
    found = probe(host)
    assert wrong(found) == {}
    (finding,) = found["probe, TLS"]
    assert finding.state is State.UNSEEN
    assert finding.text.startswith("no mail is sent by TLS: ")
