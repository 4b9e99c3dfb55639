"""Plays one case on one daemon: connects as the client, accepts as the server, and follows the script line by line.

Each of the two connections is read in the order of its own bytes, so a script says of each peer exactly what it
sees; between the peers it says only what the order of its lines implies: what was expected has been seen before
the next thing is sent. A line that is not met raises `Mismatch`, with what was played so far and the daemon's log.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING

from tests.conformance.harness.daemon import POLL
from tests.conformance.harness.peer import LIMIT, Peer
from tests.conformance.harness.script import Side, put_in, resolve
from tests.trace_ids import without_ids

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.harness.daemon import Daemon
    from tests.conformance.harness.script import Case, Step

SILENCE = 0.4
"""Seconds in which `both silent` gets nothing: only 1.10 is ever asked, for what it never answers."""


GOODBYES = (b"QUIT\r\n", b"RSET\r\n")
"""What the server may get, last of all, on behalf of a client that left."""


class Mismatch(Exception):  # noqa: N818 - it is the finding of a test, not an error of the program
    """The daemon did not follow the script."""


class CasePlayer:
    """One play of one case."""

    def __init__(self, case: Case, daemon: Daemon) -> None:
        self.case = case
        self.daemon = daemon
        self.peers: dict[str, Peer] = {}
        self.log_start = daemon.log_file.stat().st_size
        self.played: list[str] = []
        self.silent = False

    def play(self) -> None:
        """Play the case. `Mismatch` where the daemon does otherwise."""
        for old in self.daemon.directory.glob("seen.*"):
            old.unlink()
        script = "".join(put_in(line, self.daemon.places) + "\n" for line in self.case.filter)
        (self.daemon.directory / "filter").write_text(script, "utf-8")
        try:
            self.peers["c"] = self.daemon.client()
            steps = self.case.steps_for(self.daemon.side)
            after = [step for step in steps if step.actor in {"log", "no log", "seen"}]
            for says, group in groupby((step for step in steps if step not in after), key=_who_sends):
                if says:
                    self._send(list(group))
                else:
                    for step in group:
                        self._step(step)
            self._finish()
            for step in after:
                self._step(step)
        finally:
            for peer in self.peers.values():
                peer.close()
            self._drain()

    def _send(self, steps: list[Step]) -> None:
        """Consecutive lines of one peer are sent in one piece."""
        data = b""
        for step in steps:
            self.played.append(str(step))
            data += resolve(step.text, self.daemon.places) + (b"\r\n" if step.action == ":" else b"")
        self._peer(steps[0].actor).send(data)

    def _peer(self, letter: str) -> Peer:
        letter = letter.lower()
        if letter not in self.peers:
            try:
                self.peers["s"] = self.daemon.server()
            except TimeoutError:
                self._fail("the server was not dialled")
        return self.peers[letter]

    def _step(self, step: Step) -> None:
        self.played.append(str(step))
        if step.actor in "CS":
            self._peer(step.actor).close(abort=step.action == " aborts")
        elif step.actor in "cs":
            self._expect(step)
        elif step.actor == "both":
            self._both_silent()
        elif step.actor == "seen":
            self._seen(step)
        elif step.actor == "pause":
            time.sleep(float(step.text))
        else:
            self._log(step)

    def _expect(self, step: Step) -> None:
        peer = self._peer(step.actor)
        if step.action == " ended":
            if rest := peer.rest():
                self._fail(f"instead came {rest!r}")
            if not peer.ended:
                self._fail("the connection is still open")
        elif step.action == "~":
            line = self._without_id(peer.line(), step.actor)
            if not re.fullmatch(resolve_pattern(step.text), line):
                self._fail(f"instead came {line!r}")
        else:
            wanted = resolve(step.text, self.daemon.places) + (b"\r\n" if step.action == ":" else b"")
            came = peer.exactly(len(wanted)) if step.action == "|" else self._without_id(peer.line(), step.actor)
            if came != wanted:
                self._fail(f"instead came {came!r}, and then {peer.waiting[:400]!r}")

    def _without_id(self, line: bytes, actor: str) -> bytes:
        """Our own refusals end with the trace id (docs/migration.md). Cases do not repeat it."""
        if actor == "c" and self.daemon.side is Side.OURS:
            return without_ids(line)
        return line

    def _both_silent(self) -> None:
        """Nobody gets anything: 1.10 hangs here. The play ends."""
        self.silent = True
        for letter in ("c", "s"):
            peer = self._peer(letter)
            if not peer.quiet(SILENCE / 2):
                self._fail(f"{letter} sees {peer.waiting!r}")

    def _finish(self) -> None:
        """The client has nothing more to say: both connections must end, and nothing unexpected may come before."""
        if self.silent:
            return
        client = self.peers["c"]
        if not client.closed:
            client.finish()
        for letter, peer in self.peers.items():
            if peer.closed:
                continue
            if self.daemon.side is Side.ORIGINAL:
                peer.finish()  # it may wait for the server to answer a RSET
            rest = peer.rest()
            if rest and not (letter == "s" and rest in GOODBYES):
                self._fail(f"at the end {letter} also sees {rest!r}")
            if not peer.ended:
                self._fail(f"at the end the connection of {letter} is still open")

    def _seen(self, step: Step) -> None:
        """`seen NAME VALUE`: what a filter recorded. `seen env NAME=VALUE` (`seen~` matches), or no = for unset."""
        name, _, text = step.text.partition(" ")
        record = self.daemon.directory / f"seen.{name}"
        if text == "nothing":
            if record.exists():
                self._fail("the filter has run")
            return
        self._until(record.exists, "the filter has recorded nothing")
        data = record.read_bytes()
        if name == "env":
            variable, given, value = text.partition("=")
            variables = dict(entry.partition(b"=")[::2] for entry in data.split(b"\0"))
            came = variables.get(variable.encode())
            wanted = resolve(value, self.daemon.places) if given else None
            if step.action == "~":
                fits = came is not None and re.fullmatch(wanted or b"", came) is not None
            else:
                fits = came == wanted
            if not fits:
                self._fail(f"instead the filter saw {came!r}")
        elif data != resolve(text, self.daemon.places):
            self._fail(f"instead the filter saw {data!r}")

    def _log(self, step: Step) -> None:
        """`log TEXT`, `log~ PATTERN`, `no log TEXT`: in one line of the log since the case began."""
        text = put_in(step.text, self.daemon.places)
        pattern = re.compile(text if step.action == "~" else re.escape(text))

        def found() -> bool:
            return any(pattern.search(line) for line in self.daemon.log(self.log_start).splitlines())

        if step.actor == "no log":
            if found():
                self._fail("but that was logged")
        else:
            self._until(found, "that was not logged")

    def _until(self, done: Callable[[], bool], failure: str) -> None:
        deadline = time.monotonic() + LIMIT
        while not done():
            if time.monotonic() > deadline:
                self._fail(failure)
            time.sleep(POLL)

    def _drain(self) -> None:
        """A connection to the server that nobody asked for must not become the next case's."""
        with suppress(OSError):
            while True:
                self.daemon.server(0).close()

    def _fail(self, why: str) -> None:
        played = "\n".join(f"    {line}" for line in self.played)
        log = self.daemon.log(self.log_start)[-3000:]
        where = f"{self.case.name} ({self.case.place}), {self.daemon.side.value}"
        config = "\n".join(f"    {line}" for line in self.case.config_for(self.daemon.side))
        raise Mismatch(f"{where}\n{self.case.about}\n{config}\n{played}\n--> {why}\nlog:\n{log}")


def _who_sends(step: Step) -> str:
    """The peer that sends bytes in this step; "" in any other step."""
    return step.actor if step.actor in "CS" and step.action in {":", "|"} else ""


def resolve_pattern(text: str) -> bytes:
    r"""A pattern of a whole line: the CR LF is put behind it."""
    return text.encode("utf-8") + rb"\r\n"
