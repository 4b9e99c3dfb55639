"""Edits in a chain: which are allowed, which are errors, and what becomes of their texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters import chain_endings
from proxsmtp_tp.filters.chain_endings import REPLIES, ChainEnding
from proxsmtp_tp.filters.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    DeleteRecipient,
    InsertHeader,
    Quarantine,
    RemoveHeader,
    ReplaceBody,
    ReplaceMessage,
)
from proxsmtp_tp.filters.fields import FIELDS_LIMIT
from proxsmtp_tp.filters.mail import HEADER_LIMIT, Octets
from proxsmtp_tp.filters.member import Judgement
from proxsmtp_tp.filters.spool import Spool
from proxsmtp_tp.filters.verdict import Action
from tests.unit.filters.chain_harness import Chain, Fake, two_recipients

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.filters.edits import Edit
    from tests.unit.filters.conftest import Run


def test_an_edit_that_is_wrong_or_not_allowed_is_a_failure(run: Run, tmp_path: Path) -> None:
    verdict, _ = run(Chain(tmp_path, Fake(Judgement(edits=(AddHeader(b"A B", b"x"),)))).judge())
    assert verdict.reply == REPLIES[ChainEnding.BAD_EDIT]
    body = Fake(Judgement(edits=(ReplaceBody(Octets(b"x")),)))
    verdict, _ = run(Chain(tmp_path, ("edits=headers,sender", body)).judge())
    assert verdict.reply == REPLIES[ChainEnding.NOT_ALLOWED]
    assert "body: add it to edits= of filter f0" in verdict.judged[0].text
    verdict, passed = run(Chain(tmp_path, ("edits=headers", Fake(Judgement(edits=(AddHeader(b"X", b"y"),))))).judge())
    assert passed.startswith(b"Subject: hello\r\nX: y\r\n")


@pytest.mark.parametrize(
    ("edit", "kind"),
    [
        (AddHeader(b"X", b"y"), "headers"),
        (InsertHeader(1, b"X", b"y"), "headers"),
        (ChangeHeader(b"Subject", 1, b"y"), "headers"),
        (RemoveHeader(b"Subject"), "headers"),
        (ReplaceBody(Octets(b"y\r\n")), "body"),
        (ReplaceMessage(Octets(b"X: y\r\n\r\ny\r\n")), "body"),
        (ReplaceMessage(Octets(b"X: y\r\n\r\ny\r\n")), "headers"),
        (ChangeSender(b"new@x.example"), "sender"),
        (AddRecipient(b"new@x.example"), "recipients"),
        (DeleteRecipient(b"bob@example.net"), "recipients"),
    ],
)
def test_an_edit_needs_its_kind(run: Run, tmp_path: Path, edit: Edit, kind: str) -> None:
    kinds = {"headers", "body", "sender", "recipients"}
    member = Fake(Judgement(edits=(edit,)))
    assert (
        run(Chain(tmp_path, (f"edits={','.join(kinds)}", member)).judge(envelope=two_recipients()))[0].action
        is Action.PASS
    )
    verdict, _ = run(Chain(tmp_path, (f"edits={','.join(kinds - {kind})}", member)).judge(envelope=two_recipients()))
    assert verdict.reply == REPLIES[ChainEnding.NOT_ALLOWED]
    assert f"{kind}: add it to edits=" in verdict.judged[0].text


def test_a_header_that_is_too_large_can_be_kept(run: Run, tmp_path: Path) -> None:
    member = Fake(Judgement(edits=(AddHeader(b"X", b"y"),)))
    verdict, _ = run(Chain(tmp_path, ("failure=quarantine", member)).judge(b"A: " + b"x" * HEADER_LIMIT + b"\r\n\r\n"))
    assert verdict.reply == chain_endings.NO_QUARANTINE


@pytest.mark.parametrize("settings", ["", "mode=tag", "mode=tag limit=100", "failure=pass", "failure=reject"])
@pytest.mark.parametrize(
    "text",
    [b"A: " + b"x" * HEADER_LIMIT + b"\r\n\r\n", b"A:\r\n" * (FIELDS_LIMIT + 1) + b"\r\n"],
    ids=["octets", "fields"],
)
def test_a_header_that_is_too_large(run: Run, tmp_path: Path, settings: str, text: bytes) -> None:
    """The sender made it so: such a message must not avoid the filter by failure=pass."""
    member = Fake(Judgement(edits=(AddHeader(b"X", b"y"),)))
    verdict, passed = run(Chain(tmp_path, (settings, member)).judge(text))
    assert (verdict.action, verdict.reply) == (Action.REJECT, chain_endings.HEADER_TOO_LARGE)
    assert verdict.unjudged
    assert passed == b""


@pytest.mark.parametrize(
    ("settings", "others", "passed"),
    [
        ("", (), True),
        ("", (AddHeader(b"A B", b"x"),), None),  # the edits cannot be applied
        ("failure=pass", (AddRecipient(b"no address"),), False),
        ("edits=headers", (), None),
        ("edits=none failure=pass", (), False),
        ("mode=shadow", (), False),
        ("mode=shadow edits=headers", (), False),
        ("mode=tag", (Quarantine("odd"),), False),
    ],
)
@pytest.mark.parametrize("edit", [ReplaceBody, ReplaceMessage])
def test_texts_of_a_filter_are_freed(
    run: Run,
    tmp_path: Path,
    edit: type[ReplaceBody | ReplaceMessage],
    settings: str,
    others: tuple[Edit, ...],
    passed: bool | None,
) -> None:
    """Also where an edit is refused: `Chain.judge` requires that no space is taken. `passed`: with the text, or not."""
    member = Fake()
    chain = Chain(tmp_path, (settings, member))
    text = Spool(chain.space)
    text.write(b"X: y\r\n\r\nnew\r\n")
    text.complete()
    assert chain.space._tally.total
    member.said = [Judgement(edits=(edit(text), *others))]
    verdict, judged = run(chain.judge())
    assert (verdict.action is Action.PASS) == (passed is not None)
    assert judged.endswith(b"\r\n\r\nnew\r\n") == bool(passed)
