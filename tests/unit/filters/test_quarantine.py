"""The quarantine: whole entries or none, its bounds, and what the client gets."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import stat
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.config.filter_lines import parse_filter
from proxsmtp_tp.config.settings import FilterMode, Settings
from proxsmtp_tp.filters import quarantine
from proxsmtp_tp.filters.keeping import NoKeeper, OnlySays
from proxsmtp_tp.filters.mail import Mail, Octets
from proxsmtp_tp.filters.quarantine import FULL, LEFT_OVER, QuarantineFolder
from proxsmtp_tp.filters.table import make_filter
from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.smtp.envelope import Envelope
from proxsmtp_tp.smtp.replies import Reply
from proxsmtp_tp.telemetry.quoting import quoted
from proxsmtp_tp.tls.facts import NO_TLS, Legs, TlsFacts
from tests.unit.filters.filter_harness import TEXT, judge, until
from tests.unit.filters.filter_harness import request as requested

if TYPE_CHECKING:
    from proxsmtp_tp.filters.keeping import Keeper
    from tests.unit.filters.conftest import Run

REQUEST = requested(
    envelope=Envelope(b"a\xff@x.example", b"SIZE=9", [b"b@y.example"], [b"NOTIFY=NEVER"]), server_port=2525
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "made" / "quarantine"


def keeper(place: Path, **more: Any) -> quarantine.Quarantine:
    known: dict[str, Any] = {"reply": Reply.of(250, "2.6.0 Held"), "most": 1_000_000, "days": 3, "refused": ("Virus",)}
    return quarantine.Quarantine(str(place), **(known | more))


async def kept(into: Keeper, text: bytes = TEXT, reason: str = "it is bad", tls: Legs = NO_TLS) -> Verdict:
    edited = Envelope(b"new@x.example", b"", [b"b@y.example"], [b""])
    return await into.quarantine(Mail.of(Octets(text)), replace(REQUEST, tls=tls), edited, reason=reason)


_LEG = TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384")


@pytest.mark.parametrize(("legs", "encrypted"), [(NO_TLS, False), (Legs(_LEG, _LEG), True), (Legs(server=_LEG), True)])
def test_a_message_says_whether_its_session_was_encrypted(legs: Legs, encrypted: bool, run: Run, place: Path) -> None:
    run(kept(keeper(place), tls=legs))
    (entry,) = QuarantineFolder(str(place)).entries()
    assert entry.facts["tls"] is encrypted


def test_a_message_is_kept_with_what_was_known(run: Run, place: Path) -> None:
    verdict = run(kept(keeper(place)))
    assert (verdict.action, verdict.reply, verdict.said) == (
        Action.QUARANTINE,
        Reply.of(250, "2.6.0 Held"),
        "it is bad",
    )
    (entry,) = QuarantineFolder(str(place)).entries()
    assert verdict.detail == f"kept as {entry.name}: it is bad"
    assert entry.path.read_bytes() == TEXT
    assert entry.facts["envelope"]["sender"].encode("utf-8", "surrogateescape") == b"a\xff@x.example"
    assert entry.facts["envelope"]["recipient_parameters"] == ["NOTIFY=NEVER"]
    assert entry.facts["edited_envelope"]["sender"] == "new@x.example"
    assert (entry.facts["server"], entry.facts["server_port"], entry.facts["kind"]) == (
        "198.51.100.25",
        2525,
        "quarantine",
    )
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o600}
    assert place.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in place.iterdir()) == [f"{entry.name}.eml", f"{entry.name}.json"]


def test_the_reason_cannot_look_like_a_field(run: Run, place: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reason = 'bad, id=forged, "x'
    verdict = run(kept(keeper(place), reason=reason))
    name = verdict.detail.partition(":")[0].removeprefix("kept as ")
    before = f"{REQUEST.connection}: kept in quarantine as {name}"
    assert [text for text in caplog.messages if text.startswith(before)] == [
        f"{before}: {quoted(reason)}, id={REQUEST.trace_id}"
    ]


def test_a_reply_of_5xx_is_a_rejection(run: Run, place: Path) -> None:
    verdict = run(kept(keeper(place, reply=Reply.of(550, "5.7.1 Held"))))
    assert verdict.action is Action.REJECT
    assert len(QuarantineFolder(str(place)).entries()) == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_is_452_and_never_a_pass(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    verdict = run(kept(keeper(place, most=len(TEXT) - 1)))
    assert (verdict.action, verdict.reply) == (Action.TEMPFAIL, FULL)

    def no_space(_descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_space)
        verdict = run(kept(keeper(place)))
    assert verdict.reply == FULL
    assert list(place.iterdir()) == []  # nothing is left of it


def test_messages_since_the_last_measurement_count(run: Run, place: Path) -> None:
    into = keeper(place, most=2 * len(TEXT))
    assert [run(kept(into)).action for _ in range(3)] == [Action.QUARANTINE, Action.QUARANTINE, Action.TEMPFAIL]


def test_what_is_removed_does_not_count(place: Path) -> None:
    folder = QuarantineFolder(str(place))
    folder.add(Mail.of(Octets(TEXT)), {})
    assert folder.clean(1) > 0
    for path in place.iterdir():
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    assert folder.clean(1) == 0
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("fails", ["rename of the message", "rename of the facts", "synchronization of the folder"])
def test_whatever_fails_nothing_is_left(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    """The client got 4xx and sends the message again: what is left would be released a second time."""
    rename, synchronize = Path.rename, os.fsync

    def renamed(path: Path, target: Path) -> Path:
        if fails == f"rename of the {'message' if target.suffix == '.eml' else 'facts'}":
            raise OSError(errno.EIO, "x")
        return rename(path, target)

    def synchronized(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "x")
        synchronize(descriptor)

    monkeypatch.setattr(Path, "rename", renamed)
    if fails == "synchronization of the folder":
        monkeypatch.setattr(os, "fsync", synchronized)
    assert run(kept(keeper(place))).action is Action.TEMPFAIL
    assert list(place.iterdir()) == []


def test_a_folder_that_cannot_be_used_is_a_tempfail(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    verdict = run(kept(keeper(tmp_path / "file")))
    assert verdict.action is Action.TEMPFAIL
    assert verdict.reply != FULL


class Shrinking:
    """A text that is lost while it is kept."""

    size = 10

    def at(self, start: int, _size: int) -> bytes:
        return b"short"[start:]

    def close(self) -> None: ...


def test_a_message_that_becomes_shorter_is_not_kept(run: Run, place: Path) -> None:
    async def main() -> Verdict:
        return await keeper(place).quarantine(Mail.of(Shrinking()), REQUEST, REQUEST.envelope, reason="x")

    assert run(main()).action is Action.TEMPFAIL
    assert list(place.iterdir()) == []


class Slow:
    """A text that is read while the client leaves."""

    size = len(TEXT)

    def __init__(self) -> None:
        self.read = threading.Event()
        self.may_go_on = threading.Event()
        self.closed = False

    def at(self, start: int, size: int) -> bytes:
        self.read.set()
        assert self.may_go_on.wait(30)
        assert not self.closed
        return TEXT[start : start + size]

    def close(self) -> None:
        self.closed = True


def test_a_message_whose_client_leaves_is_not_kept(run: Run, place: Path) -> None:
    """Its text is read by a thread until the coroutine ends; the client sends the message again."""
    text = Slow()

    async def main() -> None:
        keeping = asyncio.ensure_future(keeper(place).quarantine(Mail.of(text), REQUEST, REQUEST.envelope, reason="x"))
        await until(text.read.is_set, "it is read")
        keeping.cancel()
        await asyncio.sleep(0.05)
        assert not keeping.done()
        text.may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await keeping
        text.close()

    run(main())
    assert list(place.iterdir()) == []


def test_old_entries_and_halves_are_removed(run: Run, place: Path) -> None:
    folder = QuarantineFolder(str(place))
    names = [folder.add(Mail.of(Octets(TEXT)), {"id": "x", "kind": "quarantine"}) for _ in range(4)]
    (place / f"{names[1]}.json").unlink()  # a crash between both
    (place / ".new-1-0.eml").write_bytes(b"")
    (place / "notes.txt").write_bytes(b"of the administrator")
    assert place.stat().st_mode & 0o777 == 0o700
    for path in place.iterdir():
        age = 4 * 86400 if path.name.startswith((names[0], "notes")) else LEFT_OVER + 60
        os.utime(path, (time.time() - age,) * 2)
    assert [entry.name for entry in folder.entries()] == sorted(names[:1] + names[2:], key=names.index)
    run(kept(keeper(place)))
    left = {path.name.partition(".")[0] for path in place.iterdir()}
    assert left >= {names[2], names[3], "notes"}
    assert len(left) == 4
    assert not left & {names[0], names[1], ""}


def test_what_another_worker_writes_now_is_not_removed(place: Path) -> None:
    folder = QuarantineFolder(str(place))
    name = folder.add(Mail.of(Octets(TEXT)), {})
    (place / f"{name}.json").rename(place / f".new-{name}.json")
    before = sorted(place.iterdir())
    folder.clean(3)
    assert sorted(place.iterdir()) == before


def test_what_is_no_entry_is_left_out(place: Path) -> None:
    place.mkdir(parents=True)
    odd = (
        "{",
        "[]",
        "[" * 100_000,
        '{"time": "x"}',
        '{"time": NaN}',
        '{"time": 1e300}',
        '{"time": 1, "envelope": []}',
        '{"time": 1, "envelope": {"sender": "a", "sender_parameters": "", "recipients": [1]}}',
    )
    for number, text in enumerate(odd):
        (place / f"a-0000000{number}.json").write_text(text)
    (place / "link-00000000.json").symlink_to("/proc/self/status")
    os.mkfifo(place / "fifo-00000000.json")
    folder = QuarantineFolder(str(place))
    assert folder.entries() == []
    for name in ("a-00000000", "x-00000000"):
        with pytest.raises((OSError, ValueError)):
            folder.entry(name)


def test_a_name_is_no_path(place: Path) -> None:
    folder = QuarantineFolder(str(place))
    name = folder.add(Mail.of(Octets(TEXT)), {})
    assert folder.entry(name).name == name
    for outside in (f"../quarantine/{name}", f"./{name}", str(place / name)):
        with pytest.raises(ValueError, match="is no name of a message"):
            folder.entry(outside)


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_only_a_file_is_a_message(place: Path, kind: str) -> None:
    """Root reads it: the daemon's user must not choose another file."""
    folder = QuarantineFolder(str(place))
    entry = folder.entry(folder.add(Mail.of(Octets(TEXT)), {}))
    with entry.open() as file:
        assert file.read() == TEXT
    entry.path.unlink()
    if kind == "link":
        entry.path.symlink_to("/etc/passwd")
    else:
        os.mkfifo(entry.path)
    with pytest.raises(OSError):  # noqa: PT011  (ELOOP, or EINVAL)
        entry.open()


def test_copies_of_what_named_filters_reject(run: Run, place: Path) -> None:
    rejected = Verdict(Action.REJECT, Reply.of(550, "no"), "d", said="spam")
    deferred = Verdict(Action.TEMPFAIL, Reply.of(450, "no"), "d", said="later")

    async def main() -> None:
        into = keeper(place)
        for name, verdict in (("virus", rejected), ("virus", deferred), ("other", rejected)):
            given = await into.refused(Mail.of(Octets(TEXT)), REQUEST, REQUEST.envelope, name, verdict=verdict)
            assert given is verdict
        into = keeper(place, most=1)
        assert (
            await into.refused(Mail.of(Octets(TEXT)), REQUEST, REQUEST.envelope, "virus", verdict=rejected) is rejected
        )

    run(main())
    (entry,) = QuarantineFolder(str(place)).entries()
    assert (entry.facts["kind"], entry.facts["reason"]) == ("refused", "virus: spam")


def test_in_a_chain(run: Run, tmp_path: Path) -> None:
    lines = parse_filter("a pipe kill -9 $$ failure=quarantine") + parse_filter("b pipe sed s/hello/bye/")
    settings = Settings(filter=lines, temp_directory=str(tmp_path), quarantine_directory=str(tmp_path / "q"))

    async def main() -> Verdict:
        chain = make_filter(settings)
        assert chain is not None
        try:
            return (await judge(chain, TEXT))[0]
        finally:
            chain.close()

    assert run(main()).action is Action.QUARANTINE
    entry = QuarantineFolder(str(tmp_path / "q")).entries()[0]
    assert entry.path.read_bytes() == TEXT.replace(b"hello", b"bye")
    assert json.loads((tmp_path / "q" / f"{entry.name}.json").read_text())["reason"].startswith(
        "filter a failed: killed by"
    )


@pytest.mark.parametrize("kind", ["folder", "none", "monitor"])
def test_a_filter_without_a_reason(run: Run, place: Path, kind: str) -> None:
    """Some text shows that a filter decided: without any, the log would say that it failed."""
    keepers: dict[str, Any] = {"folder": keeper(place), "none": NoKeeper(), "monitor": OnlySays(FULL)}
    assert run(kept(keepers[kind], reason="")).said == "quarantine"


@pytest.mark.parametrize(("code", "action"), [(250, Action.QUARANTINE), (550, Action.REJECT)])
def test_what_filter_mode_monitor_says_is_what_would_happen(run: Run, place: Path, code: int, action: Action) -> None:
    reply = Reply.of(code, "x")
    assert run(kept(OnlySays(reply))).action is run(kept(keeper(place, reply=reply))).action is action


def test_with_filter_mode_monitor_nothing_is_kept(run: Run, tmp_path: Path) -> None:
    """The message passes: a copy in quarantine could be released later, and delivered twice."""
    settings = Settings(
        filter=parse_filter("a pipe kill -9 $$ failure=quarantine"),
        filter_mode=FilterMode.MONITOR,
        temp_directory=str(tmp_path),
        quarantine_directory=str(tmp_path / "q"),
    )

    async def main() -> Verdict:
        chain = make_filter(settings)
        assert chain is not None
        try:
            return (await judge(chain, TEXT))[0]
        finally:
            chain.close()

    verdict = run(main())
    assert verdict.action is Action.PASS
    assert "would quarantine: 250" in verdict.detail
    assert not (tmp_path / "q").exists()
