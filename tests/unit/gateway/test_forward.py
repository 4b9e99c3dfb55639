"""How often the host's rulesets are tried: each trial is a copy of the host, and starts an interpreter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.gateway import forward, rulesets
from proxsmtp_tp.gateway.plan import Method, Mode, Numbers, Options, Plan
from proxsmtp_tp.gateway.rulesets import Ruleset

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.mark.parametrize(
    ("names", "stopped_by", "tried"),
    [
        (["a"], [], [["a"]]),
        (["a"], ["a"], [["a"]]),
        (["a", "b"], [], [["a", "b"]]),
        (["a", "b"], ["b"], [["a", "b"], ["a"], ["b"]]),
    ],
)
def test_only_several_rulesets_are_tried_one_by_one(
    monkeypatch: pytest.MonkeyPatch, names: list[str], stopped_by: list[str], tried: list[list[str]]
) -> None:
    found: list[list[str]] = []

    def stopped(_plan: Plan, given: Sequence[Ruleset], trials: list[Any]) -> list[Any]:
        found.append([ruleset.name for ruleset in given])
        return trials if set(found[-1]) & set(stopped_by) else []

    closing = [Ruleset(name, ([], "chain c {\n drop\n}")) for name in names]
    monkeypatch.setattr(rulesets, "foreign_rulesets", lambda _plan: closing)
    monkeypatch.setattr(
        forward, "_trials", lambda *_: [forward._Trial("lan0", "192.0.2.77", "198.51.100.9", 25, "wan0")]
    )
    monkeypatch.setattr(forward, "_stopped", stopped)
    options = Options(instance="t", interfaces=("lan0",), listen_port=10025, method=Method.NFTABLES, mode=Mode.REDIRECT)
    closed = forward._closed_by_firewall(Plan(options, Numbers(1)))
    assert [item.who for item in closed] == stopped_by
    assert found == tried
