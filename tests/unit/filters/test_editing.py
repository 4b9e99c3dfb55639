"""Edits of a message: the octets that come out, sendmail's numbers of header fields, and no injection."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.filters import editing
from proxsmtp_tp.filters.editing import EditError
from proxsmtp_tp.filters.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    DeleteRecipient,
    Edit,
    InsertHeader,
    Quarantine,
    RemoveHeader,
    ReplaceBody,
    ReplaceMessage,
)
from proxsmtp_tp.filters.fields import FIELDS_LIMIT, HeaderOpenError, HeaderTooLargeError, parse_header
from proxsmtp_tp.filters.mail import HEADER_LIMIT, Mail, Octets
from proxsmtp_tp.smtp.envelope import Envelope

HEADER = b"A: 1\r\nB: 2\r\n folded\r\nA: 3\r\nC:4\r\n"
BODY = b"\r\nbody\r\n.dot\r\n"
MESSAGE = HEADER + b"\r\n" + BODY
ENVELOPE = Envelope(
    b"a@x.example", b"SIZE=10 AUTH=<> RET=FULL", [b"b@y.example", b"c@y.example"], [b"", b"NOTIFY=NEVER"]
)


def edited(message: bytes, *edits: Edit) -> bytes:
    return b"".join(editing.apply(Mail.of(Octets(message)), ENVELOPE, edits).mail.chunks())


def header_after(*edits: Edit) -> bytes:
    """The header of MESSAGE after edits; the body must be the same octets."""
    after = edited(MESSAGE, *edits)
    assert after.endswith(b"\r\n\r\n" + BODY)
    return after[: -len(BODY) - 2]


# Header fields.


def test_without_an_edit_it_is_the_same_object() -> None:
    mail = Mail.of(Octets(b"no header at all\n\0\xff"))
    after = editing.apply(mail, ENVELOPE, ())
    assert after.mail is mail
    assert after.envelope is ENVELOPE


@pytest.mark.parametrize(
    "edit",
    [RemoveHeader(b"Z"), ChangeHeader(b"Z", 1, b""), ChangeHeader(b"A", 1, b"1"), AddRecipient(b"b@Y.example")],
)
def test_an_edit_that_changes_nothing_leaves_the_same_object(edit: Edit) -> None:
    mail = Mail.of(Octets(MESSAGE))
    after = editing.apply(mail, ENVELOPE, [edit])
    assert after.mail is mail
    assert after.envelope is ENVELOPE


CHANGES = [
    ([AddHeader(b"X", b"y")], HEADER + b"X: y\r\n"),
    ([AddHeader(b"X", b"y", verbatim=True)], HEADER + b"X:y\r\n"),
    ([AddHeader(b"X", b"\ty", verbatim=True)], HEADER + b"X:\ty\r\n"),
    ([InsertHeader(0, b"X", b"y")], b"X: y\r\n" + HEADER),
    ([InsertHeader(1, b"X", b"y")], b"X: y\r\n" + HEADER),
    ([InsertHeader(2, b"X", b"y")], b"A: 1\r\nX: y\r\nB: 2\r\n folded\r\nA: 3\r\nC:4\r\n"),
    ([InsertHeader(4, b"X", b"y")], b"A: 1\r\nB: 2\r\n folded\r\nA: 3\r\nX: y\r\nC:4\r\n"),
    ([InsertHeader(5, b"X", b"y")], HEADER + b"X: y\r\n"),
    ([InsertHeader(2**31 - 1, b"X", b"y")], HEADER + b"X: y\r\n"),
    ([ChangeHeader(b"a", 2, b"new")], b"A: 1\r\nB: 2\r\n folded\r\na: new\r\nC:4\r\n"),
    ([ChangeHeader(b"A", 0, b"new")], b"A: new\r\nB: 2\r\n folded\r\nA: 3\r\nC:4\r\n"),
    ([ChangeHeader(b"A", 3, b"new")], HEADER + b"A: new\r\n"),
    ([ChangeHeader(b"A", 3, b"")], HEADER),
    ([ChangeHeader(b"Z", 1, b"")], HEADER),
    ([RemoveHeader(b"Z")], HEADER),
    ([RemoveHeader(b"a")], b"B: 2\r\n folded\r\nC:4\r\n"),
    ([RemoveHeader(b"A"), ChangeHeader(b"A", 1, b"back")], b"A: back\r\nB: 2\r\n folded\r\nC:4\r\n"),
    ([ChangeHeader(b"B", 1, b"")], b"A: 1\r\nA: 3\r\nC:4\r\n"),
    # The numbers of the same name do not move when one is deleted: forwards and backwards are the same.
    ([ChangeHeader(b"A", 1, b""), ChangeHeader(b"A", 2, b"")], b"B: 2\r\n folded\r\nC:4\r\n"),
    ([ChangeHeader(b"A", 2, b""), ChangeHeader(b"A", 1, b"")], b"B: 2\r\n folded\r\nC:4\r\n"),
    # A deleted field comes back at its place; one that was added has a number, too.
    ([ChangeHeader(b"A", 1, b""), ChangeHeader(b"A", 1, b"back")], b"A: back\r\nB: 2\r\n folded\r\nA: 3\r\nC:4\r\n"),
    ([AddHeader(b"A", b"x"), ChangeHeader(b"A", 3, b"z")], HEADER + b"A: z\r\n"),
    # A position counts only what is delivered.
    ([ChangeHeader(b"A", 1, b""), InsertHeader(2, b"X", b"y")], b"B: 2\r\n folded\r\nX: y\r\nA: 3\r\nC:4\r\n"),
    ([InsertHeader(0, b"X", b"1"), InsertHeader(0, b"X", b"2")], b"X: 2\r\nX: 1\r\n" + HEADER),
    ([AddHeader(b"X", b"a\nb\r\n c\n\td")], HEADER + b"X: a\r\n\tb\r\n c\r\n\td\r\n"),
    ([AddHeader(b"X", b"a\n\n \r\nEvil: b\n")], HEADER + b"X: a\r\n\tEvil: b\r\n"),
    ([AddHeader(b"X", b"")], HEADER + b"X: \r\n"),
    ([AddHeader(b"X", b"\xff\xfe")], HEADER + b"X: \xff\xfe\r\n"),
]


@pytest.mark.parametrize(("edits", "header"), CHANGES)
def test_header_fields(edits: list[Edit], header: bytes) -> None:
    assert header_after(*edits) == header


WRONG: list[Edit] = [
    AddHeader(b"", b"x"),
    AddHeader(b"A B", b"x"),
    AddHeader(b"A:", b"x"),
    AddHeader(b"A\r\nB", b"x"),
    AddHeader(b"\xc3\xa4", b"x"),
    AddHeader(b"A", b"a\rb"),
    AddHeader(b"A", b"a\0b"),
    AddHeader(b"A", b"x" * editing.ADDED_LIMIT),
    InsertHeader(-1, b"A", b"x"),
    ChangeHeader(b"A", -1, b"x"),
    ChangeHeader(b"A\n", 1, b"x"),
    ChangeSender(b"no address"),
    ChangeSender(b"a@x.example\r\nDATA"),
    ChangeSender(b"a@x.example", b"RET=\r\nDATA"),
    ChangeSender("ä@x.example".encode()),
    AddRecipient(b""),
    AddRecipient("ä@x.example".encode()),
    AddRecipient(b"a@x.example> <b@x.example"),
    AddRecipient(b"a" * 600 + b"@x.example"),
    DeleteRecipient(b"\n"),
]


@pytest.mark.parametrize("edit", WRONG)
def test_an_edit_that_cannot_be_applied(edit: Edit) -> None:
    with pytest.raises(EditError):
        editing.apply(Mail.of(Octets(MESSAGE)), ENVELOPE, [edit])


def test_limits() -> None:
    mail = Mail.of(Octets(MESSAGE))
    with pytest.raises(EditError, match="more than 1000 edits"):
        editing.apply(mail, ENVELOPE, [Quarantine("x")] * 1001)
    edits = [AddRecipient(b"r%d@z.example" % number) for number in range(999)]
    with pytest.raises(EditError, match="more than 1000 recipients"):
        editing.apply(mail, ENVELOPE, edits)
    with pytest.raises(HeaderTooLargeError):
        editing.apply(Mail.of(Octets(b"A: " + b"x" * HEADER_LIMIT + b"\r\n\r\n")), ENVELOPE, [AddHeader(b"X", b"y")])


def test_edits_of_a_header_are_few_where_it_has_many_fields() -> None:
    """Each is a walk through the header, in the event loop. The sender wrote the fields, so it is not a failure of the
    filter, with which a message may pass.
    """
    many = Mail.of(Octets(b"".join(b"X-%d: y\r\n" % number for number in range(10_000)) + b"\r\n"))
    for edit in (ChangeHeader(b"X-9", 1, b"z"), InsertHeader(10_000, b"A", b"z"), RemoveHeader(b"X-9")):
        editing.apply(many, ENVELOPE, [edit] * 20)
        with pytest.raises(HeaderTooLargeError):
            editing.apply(many, ENVELOPE, [Quarantine("x"), *[edit] * 21])
    few = Mail.of(Octets(b"X: y\r\n" * 200 + b"\r\n"))
    editing.apply(few, ENVELOPE, [InsertHeader(100, b"A", b"z")] * 1000)


def test_the_limits_of_a_header_are_in_the_documentation() -> None:
    text = (Path(__file__).parents[3] / "docs/filters.md").read_text()
    assert f"a header of more than {HEADER_LIMIT >> 20} MiB or {FIELDS_LIMIT:,} fields is refused (552)" in text
    assert f"edits times fields exceed {editing.WALKS_LIMIT:,}." in text


def test_a_large_header_is_read() -> None:
    large = b"A: " + b"x" * 300_000 + b"\r\n"
    assert edited(large + b"\r\n" + BODY, AddHeader(b"X", b"y")) == large + b"X: y\r\n\r\n" + BODY


# Messages without a usual header.

ODD = [
    (b"", b"X: y\r\n"),
    (b"A: 1\r\n", b"A: 1\r\nX: y\r\n"),
    (b"A: 1", b"A: 1\r\nX: y\r\n"),
    (b"\r\nbody\r\n", b"X: y\r\n\r\nbody\r\n"),
    (b"no field\r\n", b"X: y\r\n\r\nno field\r\n"),
    (b"A: 1\r\nno field\r\n", b"A: 1\r\nX: y\r\n\r\nno field\r\n"),
    (b"From a Thu\r\nA: 1\r\n\r\nb\r\n", b"From a Thu\r\nA: 1\r\nX: y\r\n\r\nb\r\n"),
    (b" folded\r\nA: 1\r\n", b"X: y\r\n\r\n folded\r\nA: 1\r\n"),
]


@pytest.mark.parametrize(("before", "after"), ODD)
def test_a_field_is_added_where_servers_end_the_header(before: bytes, after: bytes) -> None:
    assert edited(before, AddHeader(b"X", b"y")) == after


# The body.


def test_a_new_body() -> None:
    assert edited(MESSAGE, ReplaceBody(Octets(b"new\r\n"))) == HEADER + b"\r\nnew\r\n"
    assert edited(MESSAGE, ReplaceBody(Octets(b""))) == HEADER + b"\r\n"
    assert edited(b"A: 1\r\n", ReplaceBody(Octets(b"new\r\n"))) == b"A: 1\r\n\r\nnew\r\n"
    assert edited(MESSAGE, ReplaceBody(Octets(b"x")), ReplaceBody(Octets(b"y")), AddHeader(b"X", b"z")) == (
        HEADER + b"X: z\r\n\r\ny"
    )


def test_a_new_message() -> None:
    new = b"S: x\r\n\r\nhi\r\n"
    assert edited(MESSAGE, AddHeader(b"Lost", b"1"), ReplaceMessage(Octets(new))) == new
    assert edited(MESSAGE, ReplaceMessage(Octets(new)), AddHeader(b"X", b"y")) == b"S: x\r\nX: y\r\n\r\nhi\r\n"


def test_edits_of_several_filters_are_applied_in_order() -> None:
    mail = Mail.of(Octets(MESSAGE))
    first = editing.apply(mail, ENVELOPE, [ChangeHeader(b"A", 1, b""), ReplaceBody(Octets(b"new\r\n"))])
    second = editing.apply(first.mail, ENVELOPE, [ChangeHeader(b"A", 1, b"only")])  # the other filter counts anew
    assert b"".join(second.mail.chunks()) == b"B: 2\r\n folded\r\nA: only\r\nC:4\r\n\r\nnew\r\n"
    assert second.mail.at(3, 5) == b"2\r\n f"
    assert b"".join(second.mail.chunks(second.mail.body_start)) == b"new\r\n"


# The envelope.


def after(*edits: Edit) -> Envelope:
    return editing.apply(Mail.of(Octets(MESSAGE)), ENVELOPE, edits).envelope


def test_a_sender() -> None:
    new = after(ChangeSender(b"<new@x.example>", b"RET=HDRS BODY=8BITMIME"))
    assert (new.sender, new.sender_parameters) == (b"new@x.example", b"SIZE=10 RET=HDRS")
    assert after(ChangeSender(b"<>")).sender == b""
    assert after(ChangeSender(b"a@x.example")) is ENVELOPE
    assert after(ChangeSender(b"a@x.example", b"RET=HDRS")).sender_parameters == b"SIZE=10 RET=HDRS"


def test_recipients() -> None:
    assert after(AddRecipient(b"b@Y.EXAMPLE")) is ENVELOPE
    assert after(AddRecipient(b"B@y.example")).recipients == [b"b@y.example", b"c@y.example", b"B@y.example"]
    new = after(AddRecipient(b"<d@y.example>", b"NOTIFY=NEVER X=1"), DeleteRecipient(b"<b@Y.example>"))
    assert new.recipients == [b"c@y.example", b"d@y.example"]
    assert new.recipient_parameters == [b"NOTIFY=NEVER", b"NOTIFY=NEVER"]
    assert after(DeleteRecipient(b"z@y.example")) is ENVELOPE
    assert after(DeleteRecipient(b"b@y.example"), DeleteRecipient(b"c@y.example")).recipients == []
    assert ENVELOPE.recipients == [b"b@y.example", b"c@y.example"]


def test_an_edit_of_many_recipients_does_not_look_at_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may name 10,000, and a filter may make 1000 edits, in the event loop."""
    looked: list[bytes] = []
    mailbox = editing._mailbox

    def counted(address: bytes) -> tuple[bytes, bytes]:
        looked.append(address)
        return mailbox(address)

    monkeypatch.setattr(editing, "_mailbox", counted)
    recipients = [b"r%d@y.example" % number for number in range(10_000)]
    envelope = Envelope(b"a@x.example", b"", recipients, [b""] * 10_000)
    edits: list[Edit] = [DeleteRecipient(b"r%d@Y.example" % number) for number in range(500)]
    edits += [AddRecipient(b"r%d@y.example" % number) for number in range(9500, 10_000)]
    new = editing.apply(Mail.of(Octets(MESSAGE)), envelope, edits).envelope
    assert new.recipients == recipients[500:]
    assert len(looked) == 11_000


def test_a_recipient_that_was_named_twice() -> None:
    twice = Envelope(b"a@x.example", b"", [b"b@y.example", b"c@y.example", b"b@Y.EXAMPLE"], [b"", b"", b""])
    mail = Mail.of(Octets(MESSAGE))
    assert editing.apply(mail, twice, [AddRecipient(b"b@y.example")]).envelope is twice
    assert editing.apply(mail, twice, [DeleteRecipient(b"b@y.example")]).envelope.recipients == [b"c@y.example"]
    again: list[Edit] = [DeleteRecipient(b"b@y.example"), AddRecipient(b"b@y.example")]
    assert editing.apply(mail, twice, again).envelope.recipients == [b"c@y.example", b"b@y.example"]


def test_smtputf8() -> None:
    envelope = Envelope(b"a@x.example", b"SMTPUTF8", [b"b@y.example"], [b""])
    new = editing.apply(Mail.of(Octets(MESSAGE)), envelope, [AddRecipient("ä@x.example".encode())]).envelope
    assert new.recipients[1] == "ä@x.example".encode()


def test_quarantine() -> None:
    found = editing.apply(Mail.of(Octets(MESSAGE)), ENVELOPE, [Quarantine("one"), Quarantine("two")])
    assert found.quarantine == "two"
    assert found.mail.size == len(MESSAGE)


# Whatever is fed.

NAMES = st.sampled_from([b"A", b"b", b"Subject", b"X-Y"]) | st.binary(max_size=6)
VALUES = st.lists(st.sampled_from([b"\r\n", b"\n", b"\r", b" ", b"\t", b"a", b"B: c", b"\0", b".", b"\xff"])).map(
    b"".join
)
EDITS = st.one_of(
    st.builds(AddHeader, NAMES, VALUES, st.booleans()),
    st.builds(InsertHeader, st.integers(-1, 6), NAMES, VALUES, st.booleans()),
    st.builds(ChangeHeader, NAMES, st.integers(-1, 4), VALUES, st.booleans()),
)
LINES = st.sampled_from(
    [b"A: 1", b"b:2", b" folded", b"\tx", b"", b"text", b"From x", b"Subject : y", b":", b"\xff: z"]
)
MESSAGES = st.lists(LINES, max_size=8).map(lambda lines: b"".join(line + b"\r\n" for line in lines))


@given(MESSAGES)
def test_a_header_is_read_and_written_back(message: bytes) -> None:
    header = parse_header(message, whole=True)
    assert message.startswith(header.octets)
    for cut in range(len(message)):
        try:
            assert parse_header(message[:cut], whole=False) == header
        except HeaderOpenError:
            continue


@given(MESSAGES, st.lists(EDITS, max_size=5))
def test_no_edit_makes_a_field_or_a_body_of_its_own(message: bytes, edits: list[Edit]) -> None:
    mail = Mail.of(Octets(message))
    before = mail.header
    try:
        after = editing.apply(mail, ENVELOPE, edits).mail
    except EditError:
        return
    text = b"".join(after.chunks())
    again = parse_header(text, whole=True)
    assert again == after.header
    adds = sum(isinstance(edit, AddHeader | InsertHeader) or bool(edit.value) for edit in edits)  # type: ignore[union-attr]
    assert len(again.fields) <= len(before.fields) + adds
    assert text[len(again.octets) :] == message[len(before.octets) :]
