"""Exim and OpenSMTPD send through each action to a server with TLS: docs/tls.md has what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.mta.tls_senders import BEGIN, find_all, in_markdown
from tests.tls import table

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.lab.network import GatewayNetwork


def test_the_page_has_what_is_true(lab: GatewayNetwork, directory: Path) -> None:
    outcomes = find_all(lab, directory)
    assert table.in_page(BEGIN) == in_markdown(outcomes), "python -m tests.mta.tls_senders writes the table"
