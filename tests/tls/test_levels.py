"""A real Postfix of each TLS level sends through each action to another one: docs/tls.md has what becomes of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.tls import table
from tests.tls.levels import ACTIONS, LEVELS, Outcome, all_outcomes

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.lab.network import GatewayNetwork

Found = tuple[dict[tuple[str, str], Outcome], str]


@pytest.fixture(scope="module")
def found(lab: GatewayNetwork, directory: Path) -> Found:
    """All outcomes, and the gateway's log."""
    return all_outcomes(lab, directory)


def test_the_page_has_what_is_true(found: Found) -> None:
    assert table.in_page() == table.table(found[0]), "python -m tests.tls.table writes the table"


def test_what_the_client_encrypts_is_encrypted_to_the_server(found: Found) -> None:
    """Promise 11, by what the server and the filter say."""
    for outcome in found[0].values():
        assert outcome.server_tls or not outcome.client_tls


def test_a_filter_judges_all_but_what_passes(found: Found) -> None:
    outcomes, log = found
    passed = {key for key, outcome in outcomes.items() if outcome.status == "sent" and not outcome.judged}
    through = {(level, action) for level, action in passed if action != "direct"}
    assert len(re.findall(r"TLS passed on, not judged", log)) == len(through)
    assert len(re.findall(r"status=FILTERED", log)) == sum(outcome.judged for outcome in outcomes.values())


def test_every_level_sends_directly_and_where_it_passes(found: Found) -> None:
    """What keeps mail from being sent is the gateway's action, and nothing in the lab."""
    for level in LEVELS:
        direct, passed = (found[0][level.name, action] for action in ("direct", "pass"))
        assert (direct.status == "sent") == (level.name != "dane-only-plain")
        assert direct.status == passed.status


def test_no_action_is_forgotten(found: Found) -> None:
    assert found[0].keys() == {(level.name, action.name) for level in LEVELS for action in ACTIONS}
