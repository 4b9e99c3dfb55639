"""The heartbeat of a daemon whose rules fail open, and the log of the times in which mail passes unfiltered.

The master sends it, not a worker: the master never reads a byte of a peer, so clients cannot keep it busy. It sends
while `Generation.serves` is true, even if all workers are busy. So the rules let mail pass when the master has ended,
is stopped or hangs, when it drains, and when no worker starts. Workers that hang are replaced before that.

Heartbeats are sent with every configuration that has a port, because `install-rules --fail open` needs no directive.
Lines are logged only with RuleFail open. The mtime of a file is the time of the last heartbeat, so the next daemon can
log how long there was none.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from proxsmtp_tp.config.settings import RuleFail
from proxsmtp_tp.gateway.heartbeat import INTERVAL, Heartbeat
from proxsmtp_tp.gateway.plan import HEARTBEAT_HOLD

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.config.settings import Settings

log = logging.getLogger(__name__)

JIFFY = 0.02
"""Seconds by which a heartbeat in the kernel may expire too early: it counts in jiffies of at most 10 ms
(CONFIG_HZ)."""


class LastBeat:
    """The file whose mtime is the time of the last heartbeat. Without a directory for it, the time is not stored."""

    def __init__(self, path: Path | None) -> None:
        """Open or make the file. Call it as the daemon's user, after privileges were dropped."""
        self.before: float | None = None
        """Seconds of the epoch: the last heartbeat of the daemon before this one; None: there was none."""
        self._file: int | None = None
        if path is None:
            return
        try:
            self._file, existed = _open(path)
        except OSError as error:
            log.info("%s: %s: the time without a daemon will not be logged", path, error.strerror)
            return
        if existed:
            self.before = os.fstat(self._file).st_mtime

    def touch(self) -> None:
        """Now."""
        if self._file is not None:
            os.utime(self._file)

    def close(self) -> None:
        """Close the descriptor, also in a worker. Idempotent."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _open(path: Path) -> tuple[int, bool]:
    """The file, and whether it existed before."""
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags), True
    except FileNotFoundError:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600), False


class FailOpen:
    """One object in the master. Call `step` when `due` is reached."""

    def __init__(self, settings: Settings, path: Path | None) -> None:
        """`path`: the file of the last heartbeat; None: the time is not stored."""
        self._path = path
        self._last_beat = LastBeat(None)
        self._heartbeat: Heartbeat | None = None
        self._sent: float | None = None
        self._due = time.monotonic()
        self._told = False
        self._logs = False
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """A reload: another port, or another RuleFail."""
        if settings.rule_fail is not RuleFail.OPEN:
            self._last_beat.close()
        elif not self._logs:
            self._last_beat = LastBeat(self._path)
        self._logs = settings.rule_fail is RuleFail.OPEN
        self.close()
        port = settings.intercept_port
        if port is not None:  # None: only unix sockets, and no rule redirects to them
            self._heartbeat = Heartbeat(port)

    def due(self) -> float:
        """When `step` must be called next, on the monotonic clock."""
        return self._due if self._heartbeat is not None else float("inf")

    def step(self, serves: bool) -> None:
        """Send one heartbeat if its time has come and the daemon serves clients."""
        now = time.monotonic()
        if self._heartbeat is None or now < self._due:
            return
        self._due = now + INTERVAL
        if serves:
            self._heartbeat.beat()
            self._log_gap(time.monotonic())  # not `now`: the daemon may have been stopped since then
            self._last_beat.touch()
            self._sent, self._told = now, False
        elif self._sent is not None and now - self._sent > HEARTBEAT_HOLD and not self._told:
            self._told = True
            self._error("no worker can serve clients: mail passes unfiltered from now on; the lines before say why")

    def stop(self) -> None:
        """The daemon drains: no more clients are accepted, so no more heartbeats are sent."""
        if self._heartbeat is not None:
            self._error("the daemon stops: mail passes unfiltered until it is back")
            self.close()

    def hand_over(self) -> None:
        """The next daemon starts at once: the rules wait for its heartbeat HEARTBEAT_HOLD seconds from now."""
        if self._heartbeat is not None:
            self._heartbeat.beat()
            self._last_beat.touch()
            self.close()

    def close(self) -> None:
        """Send no more. Idempotent."""
        if self._heartbeat is not None:
            self._heartbeat.close()
            self._heartbeat = None

    def close_in_worker(self) -> None:
        """Close it in a worker: only the master sends heartbeats."""
        self.close()
        self._last_beat.close()

    def _log_gap(self, now: float) -> None:
        if self._sent is not None:
            seconds = now - self._sent - HEARTBEAT_HOLD
            if seconds > -JIFFY:
                why = "no worker could serve clients" if self._told else "the daemon was stopped, or got no processor"
                self._error("mail is filtered again; it passed unfiltered for %.0f s: %s", max(0.0, seconds), why)
        elif self._last_beat.before is not None:
            since = self._last_beat.before + HEARTBEAT_HOLD
            if time.time() > since:
                text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))
                self._error("mail is filtered again; without a daemon it passed unfiltered since %s", text)

    def _error(self, text: str, *arguments: object) -> None:
        if self._logs:
            log.error("RuleFail open: %s", text % arguments)
