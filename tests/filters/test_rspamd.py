"""rspamd 3.4: by milter and by HTTP, the same messages give the same octets; each action has its verdict."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.verdict import Action
from tests.filters.daemons import daemon
from tests.filters.recipes import fragment
from tests.unit.filters.member_harness import TEXT, Judged, describe, judge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RULES = r"""
local function headers(t) return function(task) task:set_milter_reply({add_headers = t}) end end
local function result(action, text, more) return function(task)
  task:set_pre_result(action, text, "test")
  if more then task:set_milter_reply(more) end
end end
local cases = {
  add = headers({["X-A"] = "one"}),
  fold = headers({["X-A"] = "one\n\ttwo\n three"}),
  several = headers({["X-A"] = {"one", "two"}}),
  objects = headers({["X-A"] = {{value = "one", order = 1}, {value = "two"}}}),
  order0 = headers({["X-A"] = {value = "a", order = 0}}),
  order1 = headers({["X-A"] = {value = "a", order = 1}}),
  order2 = headers({["X-A"] = {value = "a", order = 2}}),
  order99 = headers({["X-A"] = {value = "a", order = 99}}),
  last = headers({["X-A"] = {value = "a", order = -1}}),
  last2 = headers({["X-A"] = {value = "a", order = -2}}),
  last3 = headers({["X-A"] = {value = "a", order = -3}}),
  last99 = headers({["X-A"] = {value = "a", order = -99}}),
  mixed = headers({["X-A"] = {{value = "1"}, {value = "2", order = -2}, {value = "3", order = -3},
                             {value = "4", order = 1}, {value = "5", order = -1}, {value = "6", order = 3}}}),
  remove = function(task) task:set_milter_reply({remove_headers = {Received = 0, Subject = 1, ["X-Two"] = -1}}) end,
  remove2 = function(task) task:set_milter_reply({remove_headers = {["X-Two"] = 2, ["X-None"] = 1}}) end,
  replace = function(task)
    task:set_milter_reply({remove_headers = {Subject = 0}, add_headers = {Subject = "new"}}) end,
  envelope = function(task)
    task:set_milter_reply({add_rcpt = {"new@example.org"}, del_rcpt = {"b@example.org"}, change_from = "s@example.org"})
  end,
  body = function(task) task:set_message("New: body\r\n\r\nnew text\r\n") end,
  large = function(task) task:set_message("New: body\r\n\r\n" .. string.rep("0123456789\r\n", 10000)) end,
  spam = result("add header", "x"),
  spamheader = result("add header", "x", {spam_header = "Very"}),
  spamheaders = result("add header", "x", {spam_header = {["X-Very"] = "1"}}),
  subject = function(task) task:set_pre_result("rewrite subject", "x", "test"); task:set_metric_subject("[!] %s") end,
  reject = result("reject", "Go away"),
  discardreject = result("reject", "x", {reject = "discard"}),
  quarantinereject = result("reject", "x", {reject = "quarantine"}),
  noaction = result("reject", "x", {no_action = true}),
  soft = result("soft reject", "Not now"),
  quarantine = result("quarantine", "x"),
  discard = result("discard", "x"),
  facts = function(task)
    local f, r = task:get_from("smtp"), task:get_recipients("smtp") or {}
    local known = {tostring(task:get_from_ip()), task:get_helo() or "-", f and f[1] and f[1].addr or "-",
      tostring(#r), r[1] and r[1].addr or "-", task:get_queue_id() or "-",
      tostring(task:get_request_header("MTA-Name") or "-")}
    task:set_milter_reply({add_headers = {["X-Facts"] = table.concat(known, " ")}})
  end,
}
rspamd_config:register_symbol({name = "TEST", type = "prefilter", callback = function(task)
  local case = cases[task:get_header("X-Test") or ""]
  if case then case(task) end
end})
"""

CONFIGURATION = """
lua = "{0}/rules.lua";
options {{
  filters = "";
  dns {{ nameserver = ["127.0.0.1:1"]; }}
  tempdir = "{0}"; control_socket = "{0}/control mode=0600"; hs_cache_dir = "{0}"; cache_file = "{0}/cache";
  url_tld = "{0}/tld"; history_file = "{0}/history"; local_addrs = []; allow_raw_input = true; disable_hyperscan = true;
}}
lang_detection {{ languages = "{0}/languages"; languages_enable = ["en"]; }}
logging {{ type = "console"; level = "info"; }}
actions {{ quarantine = 1000; discard = 2000; {1} }}
worker "normal" {{ bind_socket = "{0}/http mode=0666"; count = 1; }}
worker "rspamd_proxy" {{
  bind_socket = "{0}/milter mode=0666"; count = 1; milter = yes; spam_header = "X-Spam";
  upstream "local" {{ self_scan = yes; default = yes; }}
}}
"""

HEADERS = [
    b"X-Two: 1\r\nX-two: 2\r\nX-Spam: old\r\nX-Spam: older\r\nReceived: from a\r\n\tby b\r\nSubject: hello\r\n",
    b"Received: from a\r\nReceived: from b\r\nX-Two: only\r\nSubject:\r\n folded\r\n",
]
CASES = re.findall(r"^  (\w+) = ", RULES, re.MULTILINE)
VERDICTS = {
    "reject": (Action.REJECT, b"554 5.7.1 Go away\r\n"),
    "soft": (Action.TEMPFAIL, b"451 4.7.1 Not now\r\n"),
    "discard": (Action.DISCARD, None),
    "discardreject": (Action.DISCARD, None),
}


@pytest.fixture(scope="module")
def rspamd(directory: Path) -> Iterator[Path]:
    """rspamd without its modules, and with a few regexps to compile: it starts in a second."""
    (directory / "rules.lua").write_text(RULES)
    (directory / "tld").write_text("org\nexample\n")
    (directory / "languages").mkdir()
    for name in ("en.json", "stop_words"):
        (directory / "languages" / name).symlink_to(f"/usr/share/rspamd/languages/{name}")
    configuration = directory / "rspamd.conf"
    configuration.write_text(CONFIGURATION.format(directory, fragment("/etc/rspamd/local.d/actions.conf")))
    with daemon(["rspamd", "-f", "-i", "-c", configuration], directory / "http", directory / "milter"):
        yield directory


def message(case: str, header: bytes) -> bytes:
    """A message for a rule of RULES."""
    return b"X-Test: %s\r\n" % case.encode() + header + b"From: <a@example.org>\r\n\r\nGood morning.\r\n"


def both(directory: Path, text: bytes) -> tuple[Judged, Judged]:
    """What rspamd says by milter, and by HTTP."""

    async def case() -> tuple[Judged, Judged]:
        by_milter = await judge(f"m milter {directory}/milter", text, str(directory), after=TEXT)
        return by_milter, await judge(f"h rspamd {directory}/http", text, str(directory))

    return asyncio.run(case())


@pytest.mark.parametrize("case", ["none", *CASES])
def test_milter_and_http_give_the_same(rspamd: Path, case: str) -> None:
    for at, header in enumerate(HEADERS):
        text = message(case, header)
        by_milter, by_http = both(rspamd, text)
        if case != "several":
            assert by_http.text == by_milter.text
        assert by_http.envelope == by_milter.envelope
        assert by_http.quarantine == by_milter.quarantine
        action, wire = VERDICTS.get(case, (Action.PASS, None))
        for judged in (by_milter, by_http):
            assert judged.judgement.action is action
            assert (judged.judgement.reply.wire if judged.judgement.reply else None) == wire
        if at == 0 and case not in {"none", *VERDICTS}:
            sender = by_http.envelope.sender
            assert by_http.text != text or by_http.quarantine is not None or sender != b"a@example.org"


def test_several_values_of_one_field(rspamd: Path) -> None:
    """The protocol has them (doc/developers/protocol, add_headers); the milter mode of 3.4 leaves them out."""
    assert b"X-A: one\r\nX-A: two\r\n" in both(rspamd, message("several", b""))[1].text


def test_octets(rspamd: Path) -> None:
    """Where rspamd's edits go."""
    text = message("mixed", b"Received: from a\r\n")
    after = both(rspamd, text)[1].text
    assert after.startswith(b"X-A: 4\r\nX-Test: mixed\r\n")
    assert after.endswith(b"\r\n\r\nGood morning.\r\n")


def test_what_rspamd_gets(rspamd: Path) -> None:
    text = message("facts", b"")
    for judged in both(rspamd, text):
        known = b"192.0.2.7 client.example a@example.org 1 b@example.org t1 gw.example"
        assert b"X-Facts: " + known + b"\r\n" in judged.text


def test_check(rspamd: Path) -> None:
    assert asyncio.run(describe(f"h rspamd {rspamd}/http"))[0].endswith("answers")
    lines = asyncio.run(describe(f"m milter {rspamd}/milter"))
    assert "milter protocol version 6" in lines[0]
    assert "change_body" in lines[1]
    assert "silent_headers" in lines[2]
