"""Mail of all kinds from one real Postfix to another, across the gateway: 224 messages, byte for byte.

The sender's Postfix has a queue and pipelines; the MX's announces all that Postfix has. What the gateway's filter
passes arrives as it was, once for each recipient; what it refuses comes back to the author with the filter's words.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab import network
from proxsmtp_tp.lab.gateway import Instance
from tests.real.corpus import CorpusMessage, Outcome, messages
from tests.real.postfix_pair import DOMAINS, REFUSAL

if TYPE_CHECKING:
    from tests.real.postfix_pair import PostfixPair


def _corpus(run: str) -> list[CorpusMessage]:
    return [message for domain in DOMAINS for message in messages(domain, f"{run}.{domain}")]


@pytest.fixture(scope="module")
def filter_command(directory: Path) -> str:
    """The sample filter, with the test's own faults behind it, where every user can read them."""
    own = Path(__file__).with_name("corpus-filter.sh")
    sample = Path(network.__file__).with_name("sample-filter.sh")
    return f"sh {shutil.copy(own, directory)} {shutil.copy(sample, directory)}"


def test_control_without_a_gateway(postfix_pair: PostfixPair) -> None:
    """The two Postfixes change nothing themselves: what the other tests find is ours."""
    corpus = [message for message in _corpus("control") if message.outcome is Outcome.DELIVERED]
    postfix_pair.send(corpus)
    postfix_pair.check(corpus, filtered=False)


@pytest.mark.parametrize(
    ("mode", "transparency", "filter_type", "seen"),
    [
        ("redirect", "client", "pipe", {network.WAN_V4, network.WAN_V6}),
        ("tproxy", "full", "file", {network.SENDER_V4, network.SENDER_V6}),
    ],
)
def test_corpus(
    postfix_pair: PostfixPair,
    directory: Path,
    filter_command: str,
    mode: str,
    transparency: str,
    filter_type: str,
    seen: set[str],
) -> None:
    spool = directory / f"spool-{mode}"
    spool.mkdir()
    shutil.chown(spool, "nobody")
    directives = {
        "TransparentProxy": transparency,
        "FilterCommand": filter_command,
        "FilterType": filter_type,
        "TempDirectory": str(spool),
        "User": "nobody",
        "RuleMode": mode,
        "RuleInterface": "lan",
    }
    corpus = _corpus(mode)
    with Instance(postfix_pair.lab.gateway, directory, directives, mode).running() as instance:
        postfix_pair.send(corpus)
    postfix_pair.check(corpus, filtered=True)
    assert postfix_pair.clients() == seen
    assert not list(spool.iterdir()), "something is left in TempDirectory"
    assert "Traceback" not in instance.log

    notices = postfix_pair.notices()
    for message in corpus:
        told = [notice for notice in notices if message.name in notice]
        if message.outcome is Outcome.REFUSED:
            (bounce,) = told
            for recipient in message.recipients:
                assert f"<{recipient}>: host" in bounce
            assert REFUSAL in " ".join(bounce.split())
        elif message.report:
            (report,) = told
            assert f"Original-Envelope-Id: {message.name}" in report
            assert f"Original-Recipient: rfc822;robert+{message.name}@" in report
            assert "Action: delivered" in report
        else:
            assert not told
