"""Every case of cases/, against 1.10 and against ours.

All selected cases are played at the first test, side by side; each test then reports the result of its own case.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conformance.harness.parallel import chosen, play_all
from tests.conformance.harness.script import Side, load

if TYPE_CHECKING:
    from tests.conformance.harness.parallel import Play
    from tests.conformance.harness.script import Case

CASES = load(sorted(Path(__file__).with_name("cases").glob("*.case")))
PLAYS = [pytest.param(side, case, id=f"{side.value}-{case.name}") for case in CASES for side in case.sides]


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest) -> dict[Play, str]:
    """What went wrong, by side and case; all that this run selected has been played."""
    return play_all(chosen(request, "test_case", "side", "case"))


# The first test waits for all plays; START_LIMIT and LIMIT of the harness bound each.
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("side", "case"), PLAYS)
def test_case(side: Side, case: Case, outcomes: dict[Play, str]) -> None:
    if outcomes[side, case.name]:
        pytest.fail(outcomes[side, case.name], pytrace=False)


def test_there_are_at_least_150_cases() -> None:
    assert len(CASES) >= 150
