"""A real Postfix of each TLS level sends through each action to another one: docs/tls.md has what becomes of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.tls import table
from tests.tls.capture import check_legs
from tests.tls.levels import ACTIONS, LEVELS, Found, find_all

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.lab.network import GatewayNetwork


@pytest.fixture(scope="module")
def found(lab: GatewayNetwork, directory: Path) -> Found:
    """Of all levels and actions."""
    return find_all(lab, directory)


def test_the_page_has_what_is_true(found: Found) -> None:
    assert table.in_page() == table.table(found.outcomes), "python -m tests.tls.table writes the table"


def test_what_the_client_encrypts_is_encrypted_to_the_server(found: Found) -> None:
    """Promise 11: by what the server and the filter say, and on the wire."""
    for outcome in found.outcomes.values():
        assert outcome.server_tls or not outcome.client_tls
    check_legs(found.clients, found.servers)
    encrypted = sum(outcome.status == "sent" and outcome.client_tls for outcome in found.outcomes.values())
    for leg in (found.clients, found.servers):
        assert sum(stream.tls for stream in leg) >= encrypted
    in_clear = sum(outcome.status == "sent" and not outcome.server_tls for outcome in found.outcomes.values())
    assert sum(any(command[:4] == b"MAIL" for command in stream.clear) for stream in found.servers) == in_clear


def test_a_filter_judges_all_but_what_passes(found: Found) -> None:
    outcomes = found.outcomes
    passed = [key for key, each in outcomes.items() if each.status == "sent" and not each.judged and key[1] != "direct"]
    assert len(re.findall(r"TLS passed on, not judged", found.log)) == len(passed)
    assert len(re.findall(r"status=FILTERED", found.log)) == sum(outcome.judged for outcome in outcomes.values())


def test_a_client_that_does_not_accept_our_certificate_is_named(found: Found) -> None:
    """Postfix sends no alert: it leaves after the handshake."""
    rejected = sum(outcome.said == "Server certificate not verified" for outcome in found.outcomes.values())
    assert rejected
    assert found.log.count("it probably does not accept the certificate") == rejected


def test_every_level_sends_directly_and_where_it_passes(found: Found) -> None:
    """What keeps mail from being sent is the gateway's action, and nothing in the lab."""
    for level in LEVELS:
        direct, passed = (found.outcomes[level.name, action] for action in ("direct", "pass"))
        assert (direct.status == "sent") == (level.name != "dane-only-plain")
        assert direct.status == passed.status


def test_no_action_is_forgotten(found: Found) -> None:
    assert found.outcomes.keys() == {(level.name, action.name) for level in LEVELS for action in ACTIONS}
