"""The quarantine (QuarantineDirectory): messages that are kept instead of delivered, and copies of refused ones.

Two files for each: NAME.eml, the message as the filters have edited it, and NAME.json, what was known of it. Both are
written under other names, synchronized (fsync(2)) and renamed, the JSON file last: only what has both is an entry, and
an entry is whole. Old entries are removed when a new one comes.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import re
import secrets
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from proxsmtp_tp.filters.endings import not_stored
from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.smtp.replies import Reply
from proxsmtp_tp.telemetry.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.filters.interface import FilterRequest
    from proxsmtp_tp.filters.mail import Mail
    from proxsmtp_tp.smtp.envelope import Envelope

log = logging.getLogger(__name__)

VERSION = 1
"""Of the JSON file."""
MEASURED = 10.0
"""Seconds for which a worker relies on the size that it has measured: to read a folder of 10^5 files takes 0.3 s."""
LEFT_OVER = 3600.0
"""Seconds after which a file without its other half is removed: no message takes so long to be written."""

LAST = 253402300800
"""Seconds: the year 10000, which no date can show."""

FULL = Reply.of(452, "4.3.1 No space to keep the message, try again later")

_NAME = re.compile(r"[0-9A-Za-z]{1,40}-[0-9a-f]{8}")


_NO_ENVELOPE: Final = {"sender": "", "sender_parameters": "", "recipients": [], "recipient_parameters": []}


@dataclass(frozen=True, slots=True)
class Entry:
    """A message in quarantine. `facts`: the content of its JSON file."""

    name: str
    path: Path
    facts: dict[str, Any]

    def open(self) -> BinaryIO:
        """The message. Raises OSError."""
        return _opened(self.path)


class QuarantineFolder:
    """The files. Methods block; OSError for what does not work."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def add(self, mail: Mail, facts: dict[str, Any]) -> str:
        """Keep a message; returns its name."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        identifier = re.sub(r"[^0-9A-Za-z]", "", str(facts.get("id", "")))[:40] or "0"
        name = f"{identifier}-{secrets.token_hex(4)}"
        known = {"v": VERSION, "name": name, "time": time.time(), "size": mail.size, **facts}
        made: list[Path] = []
        try:
            made.append(self._write(f"{name}.eml", mail.chunks(), mail.size))
            text = json.dumps(known, indent=1).encode() + b"\n"
            made.append(self._write(f"{name}.json", iter((text,)), len(text)))
            for temporary in made:
                temporary.rename(temporary.with_name(temporary.name.removeprefix(".new-")))
            self._synchronize()
        except BaseException:
            for each in (*made, *(self.path / f"{name}.{end}" for end in ("json", "eml"))):
                each.unlink(missing_ok=True)
            raise
        return name

    def _write(self, name: str, chunks: Iterator[bytes], size: int) -> Path:
        path = self.path / f".new-{name}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                if file.tell() != size:
                    raise OSError(errno.EIO, "the message became shorter while it was kept")
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def _synchronize(self) -> None:
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def entries(self) -> list[Entry]:
        """All entries, the oldest first. What is no entry is left out."""
        found = []
        for path in self.path.glob("*.json"):
            with suppress(OSError, ValueError):
                found.append(self._entry(path.stem))
        return sorted(found, key=lambda entry: (entry.facts["time"], entry.name))

    def entry(self, name: str) -> Entry:
        """One entry. Raises OSError, ValueError if there is no such one."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a message in quarantine")
        return self._entry(name)

    def _entry(self, name: str) -> Entry:
        with _opened(self.path / f"{name}.json") as file:
            text = file.read()
        try:
            facts = json.loads(text)
        except RecursionError:
            facts = None
        if not _is_ours(facts):
            raise ValueError(f"{name}.json is not what the daemon writes")
        return Entry(name, self.path / f"{name}.eml", facts)

    def delete(self, name: str) -> None:
        """Remove an entry: the JSON file first, because a message without one is no entry."""
        (self.path / f"{name}.json").unlink()
        (self.path / f"{name}.eml").unlink(missing_ok=True)

    def clean(self, days: float) -> int:
        """Remove entries that are older, and what a crash left; returns the octets that the rest takes."""
        now, total = time.time(), 0
        names = set()
        for found in os.scandir(self.path):
            try:
                status = found.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            total += status.st_blocks * 512
            stem = found.name.partition(".")[0]
            age = now - status.st_mtime
            if found.name.startswith(".new-") and age > LEFT_OVER:
                Path(found.path).unlink(missing_ok=True)
            elif _NAME.fullmatch(stem) and (age > days * 86400 or (age > LEFT_OVER and self._is_half(stem))):
                names.add(stem)
                total -= status.st_blocks * 512
        for name in sorted(names):
            for end in ("json", "eml"):
                (self.path / f"{name}.{end}").unlink(missing_ok=True)
        return total

    def _is_half(self, name: str) -> bool:
        return not ((self.path / f"{name}.json").exists() and (self.path / f"{name}.eml").exists())


def _opened(path: Path) -> BinaryIO:
    """A file of the folder. Root reads what the daemon's user writes: a symbolic link could name any file, and a FIFO
    would block (open(2), O_NOFOLLOW, O_NONBLOCK).
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def _is_ours(facts: object) -> bool:
    """Whether these are the facts of an entry: those that `list` and `release` use have their types."""
    if not isinstance(facts, dict):
        return False
    when, envelope = facts.get("time"), facts.get("envelope", _NO_ENVELOPE)
    if not isinstance(when, int | float) or not 0 <= when < LAST or not isinstance(envelope, dict):
        return False
    texts = [envelope.get(name) for name in ("sender", "sender_parameters")]
    lists = [envelope.get(name) for name in ("recipients", "recipient_parameters")]
    return all(isinstance(text, str) for text in texts) and all(
        isinstance(known, list) and all(isinstance(text, str) for text in known) for known in lists
    )


class Quarantine:
    """A Keeper: of one worker. `most` octets and `days` bound the folder; `refused` names filters (KeepRefused)."""

    def __init__(self, path: str, *, reply: Reply, most: int, days: float, refused: tuple[str, ...]) -> None:
        self._folder = QuarantineFolder(path)
        self._reply = reply
        self._most = most
        self._days = days
        self._refused = frozenset(name.lower() for name in refused)
        self._measured_at = float("-inf")
        self._octets = 0

    async def quarantine(self, mail: Mail, original: FilterRequest, edited: Envelope, *, reason: str) -> Verdict:
        """Keeper."""
        try:
            name = await self._kept(mail, _facts("quarantine", original, edited, reason))
        except OSError as error:
            log.error("%s: no message is kept in quarantine: %s", original.connection, error)  # noqa: TRY400
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                return Verdict(Action.TEMPFAIL, FULL, f"no space in QuarantineDirectory: {reason}")
            return not_stored(error)
        words = quoted(reason)
        log.info("%s: kept in quarantine as %s: %s, id=%s", original.connection, name, words, original.trace_id)
        action = Action.REJECT if self._reply.code >= 500 else Action.QUARANTINE
        return Verdict(action, self._reply, f"kept as {name}: {reason}", said=reason or "quarantine")

    async def refused(
        self, mail: Mail, original: FilterRequest, edited: Envelope, name: str, *, verdict: Verdict
    ) -> Verdict:
        """Keeper."""
        if name.lower() not in self._refused or verdict.action is not Action.REJECT:
            return verdict
        facts = _facts("refused", original, edited, f"{name}: {verdict.said}")
        try:
            kept = await self._kept(mail, facts)
        except OSError as error:
            log.error("%s: no copy of a refused message is kept: %s", original.connection, error)  # noqa: TRY400
        else:
            log.info("%s: a copy of the refused message is kept as %s", original.connection, kept)
        return verdict

    async def _kept(self, mail: Mail, facts: dict[str, Any]) -> str:
        """Keep a message. If it is cancelled, the client has another answer: then nothing is kept, and the message is
        not read any more when the coroutine ends.
        """
        keeping = asyncio.ensure_future(asyncio.to_thread(self._keep, mail, facts))
        try:
            return await asyncio.shield(keeping)
        except asyncio.CancelledError:
            await asyncio.wait([keeping])
            if not keeping.cancelled() and keeping.exception() is None:
                with suppress(OSError):
                    self._folder.delete(keeping.result())
            raise

    def _keep(self, mail: Mail, facts: dict[str, Any]) -> str:
        """In a thread of its own: it waits for the disk."""
        now = time.monotonic()
        if now - self._measured_at > MEASURED:
            self._folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._octets, self._measured_at = self._folder.clean(self._days), now
        if self._octets + mail.size > self._most:
            raise OSError(errno.ENOSPC, f"QuarantineMax ({self._most} octets) is reached")
        self._octets += mail.size
        return self._folder.add(mail, facts)


def _facts(kind: str, request: FilterRequest, edited: Envelope, reason: str) -> dict[str, Any]:
    """What the JSON file says. Octets that are not UTF-8 are lone surrogates (PEP 383)."""
    envelope = request.envelope
    facts: dict[str, Any] = {
        "id": request.trace_id,
        "kind": kind,
        "reason": reason,
        "client": request.client,
        "server": request.server,
        "server_port": request.server_port,
        "helo": _text(request.helo),
        "tls": request.tls.client is not None or request.tls.server is not None,
        "envelope": _shown(envelope),
    }
    return facts if edited is envelope else facts | {"edited_envelope": _shown(edited)}


def _shown(envelope: Envelope) -> dict[str, Any]:
    return {
        "sender": _text(envelope.sender or b""),
        "sender_parameters": _text(envelope.sender_parameters),
        "recipients": [_text(recipient) for recipient in envelope.recipients],
        "recipient_parameters": [_text(parameters) for parameters in envelope.recipient_parameters],
    }


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")
