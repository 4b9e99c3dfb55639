"""proxsmtp-tp rules: what is shown of each instance."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.cli import instances
from proxsmtp_tp.cli import main as cli
from proxsmtp_tp.gateway import inventory, survey
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.inventory import Owner
from proxsmtp_tp.gateway.plan import Numbers, Options, Plan
from proxsmtp_tp.gateway.state import Phase, State

if TYPE_CHECKING:
    from pathlib import Path

PLAN = Plan(Options("north", interfaces=("lan0",), ports=(25, 587), listen_port=10025, local=True), Numbers(1))
NORTH = Owner("north", State(Phase.INSTALLED, PLAN), ("nft table inet proxsmtp_north",))
TRIAL = Owner("south", State(Phase.INSTALLING, PLAN, token="t"), ())
LOST = Owner("east", None, ("nft table inet proxsmtp_east\x1b[2J",))
NOBODY = Owner("", None, ("ip -4 rule priority 100 lookup 7", "ip -4 route local default table 7"))


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Owner]:
    """What is found; one configuration is there."""
    found: list[Owner] = []
    monkeypatch.setattr(survey, "require_root", lambda: None)
    monkeypatch.setattr(inventory, "take", lambda _store: found)
    monkeypatch.setattr(instances, "DIRECTORY", tmp_path)
    (tmp_path / "north.conf").write_text("OutAddress: 127.0.0.1:25\n")
    return found


def test_for_people(owners: list[Owner], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    owners += [NORTH, TRIAL, LOST, NOBODY]
    assert cli.main(["rules"]) == 0
    none = f"  configuration: none in {tmp_path}; proxsmtp-tp remove-rules --instance"
    assert capsys.readouterr().out.splitlines() == [
        "north: nftables, redirect, port 25, 587 from lan0, this host to 10025",
        f"  configuration: {tmp_path}/north.conf",
        "  nft table inet proxsmtp_north",
        "south: nftables, redirect, port 25, 587 from lan0, this host to 10025, on trial (installing, interrupted)",
        f"{none} south removes the rules",
        "  nothing of it is in the kernel: proxsmtp-tp install-rules --instance south",
        "east: the record of its rules is lost",
        f"{none} east removes the rules",
        "  nft table inet proxsmtp_east\\x1b[2J",
        "no instance: the record of these is lost, remove each by hand",
        "  ip -4 rule del priority 100 lookup 7",
        "  ip -4 route del local default table 7",
    ]


def test_for_programs(owners: list[Owner], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    owners += [NORTH, NOBODY]
    assert cli.main(["rules", "--json"]) == 0
    north, nobody = json.loads(capsys.readouterr().out)
    assert north == {
        "instance": "north", "configuration": f"{tmp_path}/north.conf", "phase": "installed", "method": "nftables",
        "mode": "redirect", "interfaces": ["lan0"], "ports": [25, 587], "listen_port": 10025, "found": [*NORTH.found],
    }  # fmt: skip
    assert nobody == dict.fromkeys(north) | {"found": [*NOBODY.found]}


def test_none(owners: list[Owner], capsys: pytest.CaptureFixture[str]) -> None:
    assert not owners
    assert cli.main(["rules"]) == 0
    assert capsys.readouterr().out == "there are no rules of proxsmtp-tp on this host\n"


@pytest.mark.usefixtures("owners")
def test_rules_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def take(_store: object) -> list[Owner]:
        raise GatewayError("nft is not installed\ninstall it")

    monkeypatch.setattr(inventory, "take", take)
    assert cli.main(["rules"]) == 1
    assert capsys.readouterr().err == "proxsmtp-tp: nft is not installed\nproxsmtp-tp: install it\n"
