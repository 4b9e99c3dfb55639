"""The table of our own replies: each is one proper reply with an enhanced code that fits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.replies import OWN_LINE_LIMIT, Reply, ReplyReader

TABLE = {name: value for name, value in vars(answers).items() if isinstance(value, Reply)}
WITHOUT_ENHANCED_CODE = {"START_DATA"}  # RFC 2034 section 4: not for 354


@pytest.mark.parametrize("name", TABLE)
def test_each_is_one_reply_that_readers_take(name: str) -> None:
    reply = TABLE[name]
    reader = ReplyReader()
    reader.feed(reply.wire)
    assert reader.next() == reply
    assert len(reader) == 0
    assert all(len(line) < OWN_LINE_LIMIT for line in reply.wire.splitlines(keepends=True))


@pytest.mark.parametrize("name", sorted(TABLE.keys() - WITHOUT_ENHANCED_CODE))
def test_the_enhanced_code_is_of_the_class_of_the_code(name: str) -> None:
    reply = TABLE[name]
    for text in reply.texts:
        found = re.match(rb"([245])\.[0-7]\.\d{1,3} \S", text)
        assert found, f"smtp/answers.py: {name} needs an enhanced code that begins with {reply.code // 100}"
        assert int(found[1]) == reply.code // 100, f"smtp/answers.py: {name} needs {reply.code // 100}.x.x"


def test_each_is_used() -> None:
    sources = [path.read_text("utf-8") for path in Path(answers.__file__).parents[1].rglob("*.py")]
    used = set(re.findall(r"\banswers\.([A-Z_]+)\b", "".join(sources)))
    assert sorted(TABLE.keys() - used) == [], "smtp/answers.py: nobody gives these replies"


def test_no_two_names_for_one_reply() -> None:
    assert len(set(TABLE.values())) == len(TABLE)
