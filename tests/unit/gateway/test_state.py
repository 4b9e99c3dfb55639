"""The state file: written and read back completely, or ignored."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.install import fallback
from proxsmtp_tp.gateway.plan import Fail, Method, Mode, Options, make_plan
from proxsmtp_tp.gateway.state import Phase, State, Store

if TYPE_CHECKING:
    from pathlib import Path

FIRST = make_plan(Options("gate", interfaces=("eth0",)))
FULL = make_plan(
    Options(
        instance="gate",
        method=Method.IPTABLES,
        mode=Mode.TPROXY,
        interfaces=("eth0", "eth1"),
        sources=(ip_network("192.0.2.0/24"),),
        except_sources=(ip_network("2001:db8::/32"),),
        except_destinations=(ip_network("198.51.100.1"),),
        ports=(25, 587),
        listen_port=10026,
        fail=Fail.OPEN,
        local=True,
        daemon_uid=107,
        full=True,
        out_port=2525,
    ),
    slot=7,
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    state = State(Phase.INSTALLING, FULL, FIRST, 12.5, "token")
    store.write(state)
    store.write(State(Phase.INSTALLED, replace(FIRST, options=replace(FIRST.options, instance="other"))))
    assert Store(tmp_path).read("gate") == state
    assert list(store.read_all()) == ["gate", "other"]
    refusing = State(Phase.INSTALLED, replace(FIRST, refuse_all=True), FIRST)
    store.write(refusing)
    assert store.read("gate") == refusing
    store.delete("gate")
    store.delete("gate")
    assert store.read("gate") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.update(version=2),
        lambda data: data.pop("phase"),
        lambda data: data["plan"].update(slot="x"),
        lambda data: data["plan"]["options"].update(interfaces=['a"; flush ruleset']),
        lambda data: data["plan"]["options"].update(instance="a b"),
        lambda data: data["plan"]["options"].update(sources=["192.0.2.1; drop"]),
        lambda data: data["plan"]["options"].update(surprise=1),
    ],
)
def test_a_damaged_file_counts_as_none(tmp_path: Path, damage: object) -> None:
    store = Store(tmp_path)
    store.write(State(Phase.INSTALLED, FULL))
    data = json.loads(store.path("gate").read_text())
    damage(data)  # type: ignore[operator]
    store.path("gate").write_text(json.dumps(data))
    assert store.read("gate") is None
    assert store.read_all() == {}


def test_one_at_a_time_and_nothing_left(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "er"
    with Store(folder).lock():
        with pytest.raises(GatewayError, match="has been running"), Store(folder).lock(seconds=0.1):
            pass
        Store(folder).write(State(Phase.INSTALLED, FIRST))
    assert Store(folder).read("gate")
    with Store(folder).lock():
        Store(folder).delete("gate")
    assert not folder.exists()


def test_a_folder_that_is_none_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GatewayError, match="cannot be used"), Store(tmp_path / "file").lock():
        pass


def test_what_a_failure_goes_back_to() -> None:
    assert fallback(None) is None
    assert fallback(State(Phase.REMOVING, FULL)) is None
    assert fallback(State(Phase.INSTALLED, FULL)) is FULL
    assert fallback(State(Phase.INSTALLING, FULL, FIRST)) is FIRST
    # Rules on trial are nobody's wish yet.
    assert fallback(State(Phase.INSTALLED, FULL, FIRST, 1.0, "token")) is FIRST
