"""The table, the settings and the kinds of values agree: one source of truth."""

from __future__ import annotations

from dataclasses import fields
from enum import Enum
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.addresses import InetAddress
from proxsmtp_tp.config.directives.table import BY_NAME, DIRECTIVES
from proxsmtp_tp.config.settings import FilterType, Settings, TransparentProxy

if TYPE_CHECKING:
    from proxsmtp_tp.config.directives.directive import Directive

# proxsmtpd.conf(5) of 1.10, and PidFile, which it takes without saying so. Defaults as its SETTINGS section
# gives them.
ORIGINAL: dict[str, object] = {
    "FilterCommand": None,
    "FilterTimeout": 30,
    "FilterReject": "530 Email Rejected",
    "FilterType": FilterType.PIPE,
    "Header": None,
    "KeepAlives": 0,
    "Listen": (InetAddress("", 10025),),
    "MaxConnections": 64,
    "OutAddress": None,
    "Skip": False,
    "TempDirectory": "/tmp",
    "TimeOut": 180,
    "TransparentProxy": TransparentProxy.OFF,
    "User": None,
    "XClient": False,
    "PidFile": None,
}

BOOLEANS = [("on", True), ("ON", True), ("yes", True), ("true", True), ("t", True), ("1", True)] + [
    (word, False) for word in ("off", "Off", "no", "false", "f", "0")
]

GOOD: list[tuple[str, str, object]] = [
    *[("XClient", word, value) for word, value in BOOLEANS],
    *[
        ("TransparentProxy", word, TransparentProxy.CLIENT if value else TransparentProxy.OFF)
        for word, value in BOOLEANS
    ],
    ("TransparentProxy", "Client", TransparentProxy.CLIENT),
    ("TransparentProxy", "full", TransparentProxy.FULL),
    ("FilterType", "FILE", FilterType.FILE),
    ("TimeOut", "+5", 5),
    ("TimeOut", "007", 7),
    ("KeepAlives", "", 0),
    ("KeepAlives", "0", 0),
    ("FilterReject", "", ""),
    ("FilterReject", "450 4.7.1 Later", "450 4.7.1 Later"),
    ("FilterReject", "550", "550"),
    ("FilterReject", "5500 things", "5500 things"),
    ("FilterReject", "Go away", "Go away"),
    ("FilterCommand", "", None),
    ("PidFile", "", None),
    ("MaxConnections", "1", 1),
    ("Skip", "Authenticated", True),
    ("OutAddress", "192.0.2.1", InetAddress("192.0.2.1", 25)),
    ("Listen", "192.0.2.1", (InetAddress("192.0.2.1", 10025),)),
    ("Listen", "192.0.2.1: 26, [::1]:\t+27", (InetAddress("192.0.2.1", 26), InetAddress("::1", 27))),
    ("OutAddress", "mx.example: +26", InetAddress("mx.example", 26)),
    ("OutAddress", "0.0.0.0:26", InetAddress("", 26)),
    ("OutAddress", "[::]", InetAddress("", 25)),
    ("TimeOut", "2147483648", 2147483647),
    ("FilterTimeout", "+0" + "9" * 5000, 2147483647),
    ("FilterReject", "550 nö", "550 nö"),
    ("Listen", "25, 26 27", (InetAddress("", 25), InetAddress("", 26), InetAddress("", 27))),
    ("RuleInterface", "eth0,br-lan eth0", ("eth0", "br-lan")),
    ("RulePort", "25, 587", (25, 587)),
]

BAD = [
    ("XClient", "y"),
    ("XClient", "2"),
    ("XClient", ""),
    ("TransparentProxy", ""),
    ("FilterType", ""),
    ("Skip", ""),
    ("Skip", "all"),
    ("TimeOut", ""),
    ("TimeOut", "0"),
    ("TimeOut", "-1"),
    ("TimeOut", "1.5"),
    ("TimeOut", "30s"),
    ("TimeOut", "1_0"),
    ("TimeOut", "٣"),
    ("MaxConnections", "0"),
    ("MaxConnections", "524289"),
    ("Workers", "256"),
    ("TempDirectory", ""),
    ("User", ""),
    ("OutAddress", ""),
    ("FilterReject", "250 Fine"),
    ("FilterReject", "550-more to come"),
    ("FilterReject", "354 Go on"),
    ("Listen", "25,,26"),
    ("RuleInterface", "a/b"),
    ("RuleInterface", ".."),
    ("RuleInterface", "sixteen-letters-"),
    ("RuleSource", "192.0.2.1/24"),
    ("RuleSource", "example"),
    ("RulePort", "0"),
    ("RulePort", "+25"),
    ("OutAddress", "mx.example:  "),
    ("OutAddress", "mx.example: ++26"),
    ("Instance", "a b"),
    ("Instance", "seventeen-letters"),
    ("Instance", "-a"),
]


def test_each_field_has_one_row_and_each_row_a_field() -> None:
    rows, known = {row.field for row in DIRECTIVES}, {field.name for field in fields(Settings)}
    assert sorted(rows - known) == [], "config/settings.py has no field for these rows of config/directives"
    assert sorted(known - rows) == [], "config/directives has no row for these fields of config/settings.py"
    assert len(DIRECTIVES) == len(rows)


def test_the_order_is_the_same() -> None:
    hint = "config/directives and config/settings.py: the same order"
    assert [row.field for row in DIRECTIVES] == [field.name for field in fields(Settings)], hint


def test_names_differ_in_any_case() -> None:
    assert len(BY_NAME) == len(DIRECTIVES)


def test_every_directive_of_the_original_is_there_with_its_default() -> None:
    """Of 1.10, but for what docs/migration.md tells."""
    changed = {"KeepAlives": 60, "TimeOut": None}
    assert {row.name: row.default for row in DIRECTIVES if row.since == "1.10"} == ORIGINAL | changed


@pytest.mark.parametrize("row", DIRECTIVES, ids=lambda row: row.name)
def test_every_row_has_a_text(row: Directive) -> None:
    assert row.text.endswith(".")
    assert row.text[0].isupper() or row.text.split(":")[0] in row.kind.syntax
    assert row.shown_default
    assert row.kind.syntax


@pytest.mark.parametrize("row", DIRECTIVES, ids=lambda row: row.name)
def test_a_default_is_a_value_that_could_be_written(row: Directive) -> None:
    if row.default not in {None, ()} and row.name != "Skip":
        assert row.kind.parse(row.kind.show(row.default)) == row.default


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_taken(name: str, text: str, value: object) -> None:
    kind = BY_NAME[name.lower()].kind
    assert kind.parse(text) == value


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_shown_and_read_again_it_is_the_same(name: str, text: str, value: object) -> None:
    kind = BY_NAME[name.lower()].kind
    if value is not None:
        assert kind.parse(kind.show(value)) == value


@pytest.mark.parametrize(("name", "text"), BAD)
def test_refused(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        BY_NAME[name.lower()].kind.parse(text)


def test_a_network_with_host_bits_is_refused_with_the_one_that_is_meant() -> None:
    with pytest.raises(ValueError, match=r"192\.0\.2\.0/24"):
        BY_NAME["rulesource"].kind.parse("192.0.2.1/24")


def test_choices_are_the_members_of_their_enum() -> None:
    for row in DIRECTIVES:
        if isinstance(row.default, Enum):
            assert row.kind.syntax.split("|") == [member.value for member in type(row.default)]


def test_what_follows_from_the_settings() -> None:
    assert not Settings().transparent
    assert Settings(transparent_proxy=TransparentProxy.FULL).transparent
    assert Settings(out_address=InetAddress("", 25)).loopback
    assert not Settings(out_address=InetAddress("192.0.2.1", 25)).loopback
    assert not Settings(out_address=InetAddress("", 25), transparent_proxy=TransparentProxy.CLIENT).loopback
    assert Settings().intercept_port == 10025
    assert Settings(rule_listen_port=26).intercept_port == 26
    assert Settings(listen=()).intercept_port is None
    assert Settings(filter_command="127.0.0.1:783").filter_address == InetAddress("127.0.0.1", 783)
