"""opendkim signs, and the signature is valid after all; opendkim and opendmarc verify what came signed."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING

import dkim
import pytest

from proxsmtp_tp.filters.verdict import Action
from tests.filters.daemons import daemon
from tests.filters.recipes import fragment
from tests.unit.filters.member_harness import TEXT, Judged, describe, judge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIGNER = """
Mode s
Domain example.org
Selector s
KeyFile {0}/s.private
Socket local:{0}/signer
UMask 000
Canonicalization {1}
InternalHosts {0}/internal
Syslog no
RequireSafeKeys no
"""
VERIFIER = """
Mode v
Socket local:{0}/verifier
UMask 000
TestDNSData {0}/zone
AuthservID gw.example
Syslog no
RequireSafeKeys no
"""
RECIPE = """
Socket local:{0}/recipe
UMask 000
TestDNSData {0}/zone
Syslog no
RequireSafeKeys no
"""
DMARC = """
Socket local:{0}/dmarc
UMask 000
Syslog false
IgnoreHosts {0}/none
"""
MESSAGES = [
    TEXT,
    b"From: a@example.org\r\nSubject:no space\r\nTo:\tb\r\nX: 1\r\n  2\r\n\t3\r\n\r\n\r\n body \r\n\t x\r\n\r\n\r\n",
    b"From: a@example.org\r\nSubject: \xe9\r\n\r\n" + b"\xe9 long \r\n" * 20_000,
    b"From: a@example.org\r\n\r\n",
]


@pytest.fixture(scope="module")
def filters(directory: Path) -> Iterator[Path]:
    """Two signers (relaxed and simple), a verifier, one that does both."""
    subprocess.run(["opendkim-genkey", "-D", directory, "-d", "example.org", "-s", "s"], check=True)
    (directory / "s.private").chmod(0o600)
    (directory / "internal").write_text("192.0.2.0/24\n")
    (directory / "none").write_text("203.0.113.255\n")
    key = "".join(part for part in (directory / "s.txt").read_text().split('"')[1::2])
    (directory / "zone").write_text(f"s._domainkey.example.org {key}\n")
    configurations = {
        "relaxed": SIGNER.replace("/signer", "/relaxed").format(directory, "relaxed/relaxed"),
        "simple": SIGNER.replace("/signer", "/simple").format(directory, "simple/simple"),
        "verifier": VERIFIER.format(directory),
        "recipe": RECIPE.format(directory) + fragment("/etc/opendkim.conf").replace("/etc/dkimkeys", str(directory)),
        "dmarc": DMARC.format(directory) + fragment("/etc/opendmarc.conf"),
    }
    for name, text in configurations.items():
        (directory / f"{name}.conf").write_text(text)
    (directory / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    mount = f'mount --bind {directory}/resolv.conf /etc/resolv.conf && exec "$@"'
    with_resolver = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    dns = [
        *("dnsmasq", "--no-daemon", "--no-resolv", "--no-hosts", "--user=root", "--conf-file=/dev/null"),
        *("--listen-address=127.0.0.1", "--bind-interfaces", "--local=/example.org/"),
        "--txt-record=_dmarc.example.org,v=DMARC1; p=reject",
    ]
    with (
        daemon(["opendkim", "-f", "-x", directory / "relaxed.conf"], directory / "relaxed"),
        daemon(["opendkim", "-f", "-x", directory / "simple.conf"], directory / "simple"),
        daemon(["opendkim", "-f", "-x", directory / "verifier.conf"], directory / "verifier"),
        daemon(["opendkim", "-f", "-x", directory / "recipe.conf"], directory / "recipe"),
        daemon(dns, ("127.0.0.1", 53)),
        daemon([*with_resolver, "opendmarc", "-f", "-c", directory / "dmarc.conf"], directory / "dmarc"),
    ):
        yield directory


def ask(filters: Path, name: str, text: bytes, **known: object) -> Judged:
    """What a filter says of a message."""
    return asyncio.run(judge(f"d milter {filters}/{name}", text, str(filters), after=TEXT, **known))


def valid(filters: Path, text: bytes) -> bool:
    """Whether another implementation finds the signature valid (python3-dkim)."""
    record = (filters / "zone").read_text().split(" ", 1)[1].strip().encode()
    return bool(dkim.verify(text, dnsfunc=lambda *_, **__: record))


@pytest.mark.parametrize("kind", ["relaxed", "simple"])
@pytest.mark.parametrize("text", MESSAGES)
def test_signed(filters: Path, kind: str, text: bytes) -> None:
    judged = ask(filters, kind, text)
    assert judged.text.startswith(b"DKIM-Signature: ")
    assert judged.text.endswith(text)
    assert valid(filters, judged.text)
    assert not valid(filters, judged.text.replace(b"From:", b"From: x", 1))


def test_other_clients_are_not_signed(filters: Path) -> None:
    assert ask(filters, "relaxed", TEXT, client="203.0.113.9").text == TEXT


def test_verified(filters: Path) -> None:
    """opendkim itself reads what it has signed, with the header as milters are shown it."""
    for text in MESSAGES[:2]:
        signed = ask(filters, "simple", text).text
        after = ask(filters, "verifier", signed, client="203.0.113.9").text
        assert b"dkim=pass" in after
        changed = signed.replace(b"From: ", b"From:  ", 1)
        assert b"dkim=fail" in ask(filters, "verifier", changed, client="203.0.113.9").text


def test_the_recipe_signs_for_clients_inside_and_verifies_the_rest(filters: Path) -> None:
    """docs/filters.md: one daemon for both."""
    signed = ask(filters, "recipe", TEXT).text
    assert valid(filters, signed)
    after = ask(filters, "recipe", signed, client="203.0.113.9").text
    assert after.startswith(b"Authentication-Results: gw.example;")
    assert b"dkim=pass" in after
    assert after.endswith(signed)


def test_forged_results_are_removed(filters: Path) -> None:
    forged = b"Authentication-Results: gw.example; dkim=pass\r\n" * 2 + TEXT
    assert b"dkim=pass" not in ask(filters, "verifier", forged, client="203.0.113.9").text


def test_dmarc(filters: Path) -> None:
    """It judges by what opendkim, the filter before it, has written into the message."""
    passed = b"Authentication-Results: gw.example; dkim=pass header.d=example.org\r\n" + TEXT
    judged = ask(filters, "dmarc", passed)
    assert judged.judgement.action is Action.PASS
    assert b"dmarc=pass" in judged.text
    judgement = ask(filters, "dmarc", TEXT).judgement
    assert judgement.action is Action.REJECT
    assert "DMARC" in judgement.said


def test_check(filters: Path) -> None:
    lines = asyncio.run(describe(f"d milter {filters}/relaxed"))
    assert "leading_space" in lines[2]
