"""Writes table.txt: every form, what each server makes of it directly, and what a filter is told of it.

As root: `.ci/mta-root && .venv/bin/python -m proxsmtp_tp.lab.isolate .venv/bin/python -m tests.mta.table`
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.smtp.commands import parse_command, read_mail, read_rcpt
from proxsmtp_tp.smtp.replies import SmtpError
from tests.mta.forms import FORMS
from tests.mta.results import all_tried, used

if TYPE_CHECKING:
    from tests.mta.attempts import Attempt

HEAD = """\
# Written by table.py, read by people. One row for a form as a sender (S), as a recipient (R), or both (SR):
#     form | what a filter is told, or the reply of the proxy | what each server uses when it gets the form directly
# "=": the same as the filter is told. A number: the server refuses it. "?": the server took it and sent nothing on.
# Where a server uses something else than "=", it gets the address that the filter was told, or nothing.
"""
SHOWN = 70
"""Characters of a form or an address."""


def _told(form: bytes, *, sender: bool) -> str:
    verb, read = (b"MAIL FROM", read_mail) if sender else (b"RCPT TO", read_rcpt)
    try:
        return _text(b"<" + read(parse_command(verb + form + b"\r\n")).address + b">")
    except SmtpError as error:
        return error.reply.wire[:9].decode()


def _use(tried: Attempt, told: str, *, sender: bool) -> str:
    reply = tried.mail if sender else tried.rcpt
    if reply[:1] != b"2":
        return reply[:3].decode() or "closed"
    if tried.arrived is None:
        return "?"
    path = _text(used(tried.arrived.sender if sender else tried.arrived.recipients[0]))
    return "=" if path == told else path


def _text(octets: bytes) -> str:
    text = repr(octets)[2:-1]
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}.. ({len(octets)} octets)"


def _versions() -> str:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    lines = (cache / "proxsmtp-tp/mta-root/made-of").read_text().splitlines()
    names = [line.rpartition("/")[2].removesuffix(".deb") for line in lines]
    chosen = [name for name in names if name.startswith(("exim4-daemon", "opensmtpd", "sendmail-bin"))]
    postfix = subprocess.run(["postconf", "-dh", "mail_version"], capture_output=True, text=True, check=True).stdout
    return f"# Postfix {postfix.strip()}, {', '.join(chosen)}\n"


def _rows(direct: dict[str, list[Attempt]]) -> list[str]:
    rows = []
    for number, form in enumerate(FORMS):
        cells = []
        for sender in (True, False):
            told = _told(form, sender=sender)
            cells.append([told, *(_use(tried[number], told, sender=sender) for tried in direct.values())])
        kinds = [("SR", cells[0])] if cells[0] == cells[1] else [("S ", cells[0]), ("R ", cells[1])]
        rows += [f"{kind} {_text(form)} | {' | '.join(row)}" for kind, row in kinds]
    return rows


def main() -> None:
    """Try all, write the table."""
    with all_tried() as results:
        direct = {name: result.direct for name, result in results.items()}
    head = f"{HEAD}{_versions()}# form | told | {' | '.join(direct)}\n\n"
    Path(__file__).with_suffix(".txt").write_text(head + "\n".join(_rows(direct)) + "\n", "ascii")


if __name__ == "__main__":
    main()
