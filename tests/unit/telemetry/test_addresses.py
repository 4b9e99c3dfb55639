"""LogAddresses: what is shown of addresses, and pseudonyms that can be found with the key only."""

from __future__ import annotations

import re
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.telemetry.addresses import Addresses, domain, none
from proxsmtp_tp.telemetry.pseudonyms import KEPT_DAYS, Pseudonyms, pseudonym, read_keys

if TYPE_CHECKING:
    from pathlib import Path

NOON = 1_795_867_200 + 43_200.0
DAY = 86_400
KEY = bytes(range(32))


@pytest.mark.parametrize(
    ("shown", "address", "expected"),
    [
        (None, b"Bob@Example.org", "Bob@Example.org"),
        (domain, b"Bob@Example.org", "@example.org"),
        (domain, b"postmaster", "(hidden)"),
        (none, b"Bob@Example.org", "(hidden)"),
        (none, b"", ""),
        (domain, b"<1.bob@example.org>", "<@example.org>"),
        (domain, b'"b@b"@example.org', "@example.org"),
    ],
)
def test_an_address(shown: object, address: bytes, expected: str) -> None:
    assert Addresses(shown).address(address) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("550 5.1.1 <bob@example.org>: unknown", "550 5.1.1 <@example.org>: unknown"),
        ("550 5.1.1 Bob... User unknown", "550 5.1.1 (hidden)... User unknown"),
        ("no mailbox bob here, bobby", "no mailbox (hidden) here, bobby"),
        ('no "b ob"@example.org', "no @example.org"),
        ("CLIENT < RCPT TO:<root>", "CLIENT < RCPT TO:<(hidden)>"),
        ("RCPT TO:<bob@[192.0.2.1]>", "RCPT TO:<@[192.0.2.1]>"),
        ("250 2.0.0 Ok: queued as 4F1", "250 2.0.0 Ok: queued as 4F1"),
    ],
)
def test_words_of_a_server(words: str, expected: str) -> None:
    assert Addresses(domain).words(words, [b"bob@example.org"]) == expected
    assert Addresses().words(words, [b"bob@example.org"]) == words


def test_a_pseudonym() -> None:
    shown = pseudonym(KEY, "Bob@Example.org")
    assert re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{13}@example\.org", shown)
    assert shown == pseudonym(KEY, "bob@example.ORG")
    assert shown != pseudonym(KEY[::-1], "bob@example.org")
    assert pseudonym(KEY, "bob@example.net").partition("@")[0] != shown.partition("@")[0]
    assert "@" not in pseudonym(KEY, "postmaster")


def test_all_processes_use_the_key_of_the_day(tmp_path: Path) -> None:
    path = tmp_path / "state" / "pseudonym.key"
    with ThreadPoolExecutor(8) as pool:
        shown = set(pool.map(lambda _: Pseudonyms(path, lambda: NOON).shown("bob@example.org"), range(8)))
    assert len(shown) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (key,) = read_keys(path).values()
    assert shown == {pseudonym(key, "bob@example.org")}


def test_keys_change_and_old_ones_go(tmp_path: Path) -> None:
    path = tmp_path / "pseudonym.key"
    now = [NOON]
    names = Pseudonyms(path, lambda: now[0])
    shown = []
    for day in range(KEPT_DAYS + 3):
        now[0] = NOON + day * DAY
        shown.append(names.shown("bob@example.org"))
    assert len(set(shown)) == KEPT_DAYS + 3
    assert [pseudonym(key, "bob@example.org") for key in read_keys(path).values()] == shown[3:]


def test_without_a_file_nothing_is_shown_in_clear(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    names = Pseudonyms(tmp_path / "file" / "pseudonym.key", lambda: NOON)
    assert "bob" not in names.shown("bob@example.org")
    names.shown("ann@example.org")
    assert len(caplog.records) == 1
    assert "cannot be looked up" in caplog.text


def test_a_damaged_file_has_a_new_key(tmp_path: Path) -> None:
    path = tmp_path / "pseudonym.key"
    path.write_bytes(b"2026-11-28 00ff\nrubbish \xff\n2026-13-01 " + b"00" * 32 + b"\n")
    assert read_keys(path) == {}
    assert Pseudonyms(path, lambda: NOON).shown("bob@example.org")
    assert len(read_keys(path)) == 1
