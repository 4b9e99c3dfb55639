"""Every form of MAIL and RCPT, at four servers, directly and through the proxy (promise 7: one reading).

What the filter was told is what the server used: it shows in the envelope that the server hands on. `table` writes all
of it down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.smtp import answers
from tests.mta.forms import FORMS, USUAL
from tests.mta.results import Result, all_tried, used
from tests.mta.servers import NAME, START_BY_NAME
from tests.trace_ids import without_ids

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = {
    reply.wire.rstrip(b"\r\n")
    for reply in (
        answers.MAIL_SYNTAX,
        answers.RCPT_SYNTAX,
        answers.SENDER_SYNTAX,
        answers.RECIPIENT_SYNTAX,
        answers.PARAMETER_SYNTAX,
    )
}


@pytest.fixture(scope="module")
def results() -> Iterator[dict[str, Result]]:
    """All forms tried at every server: a minute where the machine has nothing else to do."""
    with all_tried() as tried:
        yield tried


@pytest.fixture(params=list(START_BY_NAME))
def result(request: pytest.FixtureRequest, results: dict[str, Result]) -> Result:
    """Those of one server."""
    return results[request.param]


def _is_used(told: bytes, argument: bytes) -> bool:
    """Whether this MAIL or RCPT of a server names the address that a filter was told."""
    if told.lower() == b"postmaster":
        told += b"@" + NAME.encode()  # the one address that each server completes (RFC 5321 section 4.5.1)
    return used(argument) == b"<" + (b"" if told == b"<>" else told) + b">"


# The first test waits until all is tried.
@pytest.mark.timeout(400)
def test_a_filter_learns_what_the_server_uses(result: Result) -> None:
    wrong = []
    compared = 0
    for tried in result.proxied:
        message = tried.arrived
        if message is None:
            continue
        told = result.proxy.told(message)
        compared += 1
        right = _is_used(told.sender, message.sender) and len(told.recipients) == len(message.recipients) == 1
        if not right or not _is_used(told.recipients[0], message.recipients[0]):
            wrong.append(f"{tried.form!r}: told {told}, used {message.sender!r}, {message.recipients}")
    assert not wrong, "\n".join(wrong)
    assert compared > 0.9 * len(FORMS)


def test_all_that_the_server_took_through_the_proxy_arrived(result: Result) -> None:
    assert [tried.form for tried in result.proxied if tried.taken[:1] == b"2" and tried.arrived is None] == []


def test_a_usual_form_passes_as_it_does_directly(result: Result) -> None:
    for direct, proxied in zip(result.direct, result.proxied, strict=True):
        if direct.form not in USUAL:
            continue
        for before, now in ((direct.mail, proxied.mail), (direct.rcpt, proxied.rcpt)):
            assert before[:1] != b"2" or now[:1] == b"2", (direct.form, before, now)


def test_what_only_the_proxy_refuses_gets_a_reply_that_says_why(result: Result) -> None:
    refused = 0
    for direct, proxied in zip(result.direct, result.proxied, strict=True):
        for before, now in ((direct.mail, proxied.mail), (direct.rcpt, proxied.rcpt)):
            if before[:1] == b"2" and now[:1] != b"2":
                refused += 1
                assert without_ids(now) in OURS, (direct.form, before, now)
    assert refused  # otherwise the forms do not try anything
