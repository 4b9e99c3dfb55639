"""A filter with the real libmilter (Debian's python3-milter), which does what a file says. Needs /usr/bin/python3.

The file is read at each connection, as JSON: `steps` (bits for the negotiation), `answers` (by callback: the name of a
status, or the arguments of smfi_setmlreply), `edits` (calls at the end of the message), `symbols` (lists of macros by
stage), `token` (a number). What was seen is written to the file SEEN.TOKEN: each callback with its
arguments, and macros.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, "/usr/lib/python3/dist-packages")

import Milter  # type: ignore[import-not-found]

PLAN, SEEN, SOCKET = sys.argv[1:]
MACROS = [
    *("j", "_", "i", "v", "{daemon_name}", "{daemon_port}", "{client_addr}", "{mail_addr}", "{rcpt_addr}"),
    *("{auth_type}", "{auth_authen}"),
]


def text(value: object) -> object:
    """A value as JSON can hold it."""
    return value.decode("latin-1") if isinstance(value, bytes) else value


class Scripted(Milter.Base):  # type: ignore[misc]
    """One message."""

    def __init__(self) -> None:
        self.plan = json.loads(Path(PLAN).read_text())
        self.seen: list[object] = []

    def negotiate(self, opts: list[int]) -> int:
        """Choose the steps of the plan, as far as they are offered."""
        self._actions = opts[0]
        self.seen.append(["negotiate", opts[0], opts[1]])
        for stage, names in self.plan.get("symbols", {}).items():
            self._ctx.setsymlist(getattr(Milter, stage), " ".join(names))  # its own setsymlist passes bytes, an error
        opts[1] = self._protocol = opts[1] & self.plan.get("steps", 0)
        return int(Milter.CONTINUE)

    def happened(self, name: str, *given: object) -> int:
        """Store what was seen, and answer."""
        macros = {symbol: text(value) for symbol in MACROS if (value := self.getsymval(symbol)) is not None}
        self.seen.append([name, *map(text, given), macros])
        answers = self.plan.get("answers", {})
        answer = answers.get(f"{name}:{text(given[0])}" if given else name, answers.get(name))
        if isinstance(answer, list):
            self.setreply(*answer)
            answer = "REJECT" if answer[0].startswith("5") else "TEMPFAIL"
        if answer is None:
            silent = self._protocol & getattr(Milter, SILENT.get(name, ""), 0)
            return int(Milter.NOREPLY if silent else Milter.CONTINUE)
        return int(getattr(Milter, answer))

    def connect(self, name: str, family: int, address: object) -> int:
        return self.happened("connect", name, family, address)

    def hello(self, name: str) -> int:
        return self.happened("hello", name)

    def envfrom_bytes(self, *words: bytes) -> int:
        return self.happened("envfrom", *words)

    def envrcpt_bytes(self, *words: bytes) -> int:
        return self.happened("envrcpt", *words)

    def data(self) -> int:
        return self.happened("data")

    def header_bytes(self, name: str, value: bytes) -> int:
        return self.happened("header", name, value)

    def eoh(self) -> int:
        return self.happened("eoh")

    def body(self, chunk: bytes) -> int:
        return self.happened("body", len(chunk))

    def eom(self) -> int:
        for name, *given in self.plan.get("edits", []):
            if name == "sleep":
                time.sleep(*given)
            else:
                words = [word.encode("latin-1") if name == "replacebody" else word for word in given]
                getattr(self, name)(*words)
        return self.happened("eom")

    def close(self) -> int:
        # A file for each plan: a connection of an earlier one may end later. One that asked nothing is not a message.
        if self.seen:
            new = Path(f"{SEEN}.new.{id(self)}")
            new.write_text(json.dumps(self.seen))
            new.rename(f"{SEEN}.{self.plan.get('token')}")
        return int(Milter.CONTINUE)


SILENT = {
    "connect": "P_NR_CONN",
    "hello": "P_NR_HELO",
    "envfrom": "P_NR_MAIL",
    "envrcpt": "P_NR_RCPT",
    "data": "P_NR_DATA",
    "header": "P_NR_HDR",
    "eoh": "P_NR_EOH",
    "body": "P_NR_BODY",
}

Milter.factory = Scripted
Milter.set_flags(
    Milter.ADDHDRS
    | Milter.CHGHDRS
    | Milter.CHGBODY
    | Milter.ADDRCPT
    | Milter.DELRCPT
    | Milter.QUARANTINE
    | Milter.CHGFROM
    | Milter.ADDRCPT_PAR
    | Milter.SETSYMLIST
)
Milter.runmilter("scripted", "unix:" + SOCKET, 240)
