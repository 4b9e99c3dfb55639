"""Warnings of check-config about a valid file that is probably not what was meant."""

from __future__ import annotations

import pytest

from proxsmtp_tp.config.advice import advice
from proxsmtp_tp.config.reader import parse_config

UNJUDGED = "Filter: there is no filter, and no FilterCommand: all mail passes this gateway unjudged"


def said(*lines: str) -> list[str]:
    """The advice for a file with these lines."""
    return advice(parse_config("\n".join(lines).encode(), "gateway.conf").settings)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", [UNJUDGED]),
        ("FilterCommand: /bin/cat", []),
        ("Filter: virus clamd /run/clamav/clamd.ctl", []),
        ("FilterType: reject", []),
    ],
)
def test_a_gateway_without_a_filter_is_reported(line: str, expected: list[str]) -> None:
    assert said("TransparentProxy: client", line) == expected


def test_a_proxy_before_one_server_may_have_no_filter() -> None:
    assert said("OutAddress: 192.0.2.25", "Listen: 127.0.0.1:10025") == []


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["OutAddress: 192.0.2.25"], True),
        (["OutAddress: 192.0.2.25", "Listen: [::]:10025"], True),
        (["OutAddress: 192.0.2.25", "Clients: 192.0.2.0/24"], False),
        (["OutAddress: 192.0.2.25", "Listen: 127.0.0.1:10025"], False),
        (["TransparentProxy: client", "FilterCommand: /bin/cat"], False),
    ],
)
def test_a_server_that_anyone_can_use_is_reported(lines: list[str], told: bool) -> None:
    assert [text.startswith("Listen: everybody who reaches this host can send mail") for text in said(*lines)] == (
        [True] if told else []
    )


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (
            ["Filter: a pipe cat failure=quarantine", "Filter: b pipe cat", "Filter: c pipe cat failure=quarantine"],
            "a, c",
        ),
        (["Filter: a pipe cat failure=quarantine", "QuarantineDirectory: /var/lib/q"], ""),
        (["Filter: a pipe cat failure=reject"], ""),
    ],
)
def test_a_quarantine_without_a_directory_is_reported(lines: list[str], told: str) -> None:
    found = said("TransparentProxy: client", *lines)
    assert [text.startswith(f"Filter: failure=quarantine of {told}: there is no Quarantine") for text in found] == (
        [True] if told else []
    )
