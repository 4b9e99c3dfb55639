"""Checks the filters as the daemon sees them: FilterCommand, or each line of a chain.

A command must be there for the daemon's user. A server is connected to as check-filters does it, as that user.
"""

from __future__ import annotations

import socket
import subprocess
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.config.addresses import InetAddress, UnixAddress
from proxsmtp_tp.config.filter_lines import COMMANDS, Failure, MemberType, Mode
from proxsmtp_tp.config.settings import FilterType
from proxsmtp_tp.gateway.doctor.daemon_view import is_hidden, job_of, look, process_of, run_as_daemon
from proxsmtp_tp.gateway.doctor.findings import Finding, Setup, unseen
from proxsmtp_tp.gateway.doctor.fixes import NONE, Fix, fix
from proxsmtp_tp.gateway.doctor.listeners import ANSWER_SECONDS
from proxsmtp_tp.gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.config.filter_lines import FilterLine

_ASK_SECONDS = 7.0
"""For all filters, which are asked at the same time: with `daemon_access` before it, less than a step may take."""

_POLICY = {
    Failure.TEMPFAIL: "messages are deferred (failure=tempfail)",
    Failure.REJECT: "messages are rejected (failure=reject)",
    Failure.PASS: "messages pass without its verdict (failure=pass)",
    Failure.QUARANTINE: "messages go to quarantine (failure=quarantine)",
}


def look_at_filter(setup: Setup) -> Iterator[Finding]:
    """Checks that the daemon's user can run the commands of filters, and reach their servers."""
    settings = setup.settings
    if settings.filter_type is FilterType.REJECT or not (settings.filter or settings.filter_command):
        return
    scanner = settings.filter_address if not settings.filter and settings.filter_type is FilterType.SMTP else None
    if isinstance(scanner, InetAddress):
        yield _scanner(setup, scanner)
        return
    pid = process_of(setup)
    if pid is None and is_hidden(setup):
        yield unseen("filter", f"the daemon does not run, and {setup.unit}.service does not show it the whole host")
    elif settings.filter:
        yield from _chain(setup, pid)
    elif scanner is not None:
        seen = look(setup, pid, sockets=[scanner.path])["sockets"][0]
        if "problem" in seen:
            yield Finding(
                "filter", False, f"the scanner at {scanner} does not answer: {seen['problem']}", _join(setup, seen)
            )
        else:
            yield Finding("filter", True, f"{scanner} answers")
    else:
        yield _of_command(setup, "filter", look(setup, pid, [settings.filter_command or ""])["commands"][0])


def _of_command(setup: Setup, step: str, seen: dict[str, Any], after: str = "") -> Finding:
    file, who = seen["file"], setup.settings.user or "the daemon"
    fixes = {"mode": fix("filter's mode", file=file), "returns": fix("carriage returns", file=file)}
    if "problem" not in seen:
        return Finding(step, True, file)
    by = f" by {who}" if seen["kind"] == "mode" else ""
    return Finding(step, False, f"{seen['problem']}{by}{after}", fixes.get(seen["kind"], NONE))


def _scanner(setup: Setup, address: InetAddress) -> Finding:
    try:
        with closing(socket.create_connection((address.host, address.port), ANSWER_SECONDS)):
            pass
    except (OSError, ValueError) as error:
        return Finding("filter", False, f"the scanner at {setup.settings.filter_command} does not answer: {error}")
    return Finding("filter", True, f"{address} answers")


def _join(setup: Setup, seen: dict[str, Any]) -> Fix:
    """The fix for a socket that its mode closes to the daemon's user, where a group would open it."""
    if not seen["groups"] or not seen["user"]:
        return NONE
    return fix("filter's socket", groups=",".join(seen["groups"]), user=seen["user"], restart=setup.restart)


# A chain.


def _chain(setup: Setup, pid: int | None) -> Iterator[Finding]:
    parts = [part for line in setup.settings.filter for part in _parts(line)]
    found = _access(setup, pid, parts)
    _ask(setup, pid, [(part, known) for part, known in zip(parts, found, strict=True) if _is_to_ask(part, known)])
    for line in setup.settings.filter:
        own = [(part, known) for part, known in zip(parts, found, strict=True) if part.name == line.name]
        others = any(not known.get("problem") for _, known in own)
        for part, known in own:
            yield _of_part(setup, part, known, others=others)


def _access(setup: Setup, pid: int | None, parts: list[FilterLine]) -> list[dict[str, Any]]:
    """What `daemon_access` says of commands and unix sockets. Raises GatewayError."""
    commands = [part.command for part in parts if part.command]
    seen = look(setup, pid, commands, [path for part in parts if (path := _path(part))])
    programs, sockets = iter(seen["commands"]), iter(seen["sockets"])
    return [next(programs) if part.command else next(sockets) if _path(part) else {} for part in parts]


def _ask(setup: Setup, pid: int | None, asked: list[tuple[FilterLine, dict[str, Any]]]) -> None:
    """Ask them who they are, and add what they say to what is known."""
    if not asked or not setup.filter_asker:
        return
    job = job_of(setup, pid) | {"filters": [str(part) for part, _ in asked]}
    try:
        answers = run_as_daemon(setup.filter_asker, job, _ASK_SECONDS)
    except (GatewayError, OSError, subprocess.SubprocessError) as error:
        answers = [{"unseen": f"it cannot be asked: {error}"}] * len(asked)
    for (_, known), answer in zip(asked, answers, strict=True):
        known.update(answer)


def _parts(line: FilterLine) -> list[FilterLine]:
    """A line for each of its addresses."""
    return [replace(line, addresses=(address,)) for address in line.addresses] if line.addresses else [line]


def _path(part: FilterLine) -> str:
    """Of its unix socket; empty: it has none."""
    address = part.addresses[0] if part.addresses else None
    return address.path if isinstance(address, UnixAddress) else ""


def _is_to_ask(part: FilterLine, known: dict[str, Any]) -> bool:
    """A command for each message is not run without a message."""
    return not known.get("problem") and (part.type not in COMMANDS or part.type is MemberType.WORKER)


def _of_part(setup: Setup, part: FilterLine, known: dict[str, Any], *, others: bool) -> Finding:
    step, says, problem = f"filter, {part.name}", known.get("says"), known.get("problem")
    if "unseen" in known:
        return unseen(step, known["unseen"])
    if not problem:
        return Finding(step, True, says[0] if says else known.get("file") or f"{part.addresses[0]} answers")
    policy = "only the log lacks its verdict (mode=shadow)" if part.mode is Mode.SHADOW else _POLICY[part.failure]
    after = f"; {'another address is used' if others else policy}"
    if "kind" in known:
        return _of_command(setup, step, known, after)
    if known.get("late") and part.type is MemberType.WORKER:
        return unseen(step, f"{problem}; it may take start={part.start:g} s: see check-filters")
    if "groups" not in known:
        return Finding(step, False, f"{problem}{after}")
    who = f" for {known['user'] or setup.settings.user or 'the daemon'}" if known["denied"] else ""
    return Finding(step, False, f"{part.addresses[0]}: {problem}{who}{after}", _join(setup, known))
