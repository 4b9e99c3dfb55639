"""Random dialogues with fixed seeds: a fixed number, the same ones on every machine."""

from __future__ import annotations

import re
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxsmtp_tp.session.options import Options
from tests.fuzz.random_peers import (
    BARE,
    END,
    assert_one_reading,
    assert_only_the_clients_commands,
    client_stream,
    plain,
    view,
)
from tests.fuzz.random_session import RandomSession
from tests.unit.net.proxy_harness import codes

if TYPE_CHECKING:
    from tests.fuzz.random_peers import View

CLEAN = re.compile(rb"(?:[2-5]\d\d(?:[ -][^\x00-\x1f\x7f]*)?\r\n)*")
SETTINGS = settings(max_examples=500, derandomize=True, deadline=None, database=None)
OPTIONS = {
    "streamed": Options(),
    "filtered": Options(filtered=True),
    "filtered, refusing bare newlines": Options(filtered=True, refuse_bare_newlines=True),
    "streamed, refusing bare newlines": Options(refuse_bare_newlines=True),
    "with a header": Options(header="X-Gateway: here"),
}


def played(seed: int, options: Options, *, hostile: bool = False) -> tuple[RandomSession, View, bytes]:
    random = Random(seed)
    said = client_stream(random)
    dialogue = RandomSession(random, options, said, hostile=hostile)
    dialogue.play()
    return dialogue, view(said, codes(dialogue.told)), said


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@given(seed=st.integers(0, 2**32))
@SETTINGS
def test_a_dialogue(options: Options, seed: int) -> None:
    dialogue, seen, said = played(seed, options)
    words = f"seed {seed}: {said!r} -> {bytes(dialogue.told)!r}"
    server = dialogue.server

    # In step: every whole line has one reply, every message two, and nothing is left waiting.
    if not seen.ended:
        assert seen.in_text or b"\r\n" not in seen.unanswered, words
        assert not dialogue.session._d.outstanding, words
    assert dialogue.closed == seen.ended, words

    # As many 2xx as the server gave, and one for each message that a filter discarded.
    accepted = sum(code // 100 == 2 for code in seen.finals)
    discarded = sum(reply == b"250 discarded" for reply in bytes(dialogue.told).split(b"\r\n"))
    assert accepted - discarded == len(server.accepted), words

    # One message in, one message out, in order, whole.
    assert_one_reading(server, words)
    assert_only_the_clients_commands(server.commands, said)
    sent = [plain(text) for text in seen.texts]
    arrived = [plain(message).replace(b"X-Gateway: here", b"") for message in server.messages]
    if options.filtered:
        judged = iter([plain(text) for text in dialogue.judged])
        assert all(message in judged for message in arrived), words  # in order; the server may refuse our DATA
        assert {plain(text) for text in dialogue.heard} <= set(sent), words
    else:
        assert arrived == sent[: len(arrived)], words


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@given(seed=st.integers(0, 2**32))
@SETTINGS
def test_a_dialogue_with_a_hostile_server_and_peers_that_go_away(options: Options, seed: int) -> None:
    dialogue, seen, said = played(seed, options, hostile=True)
    words = f"seed {seed}: {said!r} -> {bytes(dialogue.told)!r}"
    assert dialogue.closed, words
    assert CLEAN.fullmatch(dialogue.told), words
    if options.filtered:
        assert_only_the_clients_commands(bytes(dialogue.unjudged).split(b"\r\n")[:-1], said)
        assert not BARE.search(dialogue.unjudged), words
    # 2xx only where the server said 2xx, or a filter discarded; never more of them than whole messages.
    assert len(seen.finals) <= said.count(END), words
