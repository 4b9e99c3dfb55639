"""Between try-filter and the process in which a filter is tried: messages in one direction, verdicts in the other.

A frame is one JSON object in a line; its `size` is the number of octets that follow. The first frame of the process
says as which user it runs; then it sends one answer for each message.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import uvloop

from proxsmtp_tp.config.filter_lines import parse_filter
from proxsmtp_tp.config.settings import FilterDefault, FilterType, Settings
from proxsmtp_tp.filters.chain import ChainFilter
from proxsmtp_tp.filters.interface import FilterRequest
from proxsmtp_tp.filters.table import make_filter
from proxsmtp_tp.filters.trial import ENDING, Trial, try_message
from proxsmtp_tp.smtp.envelope import Envelope

if TYPE_CHECKING:
    import socket
    from io import BufferedRWPair

    from proxsmtp_tp.filters.interface import Filter

HEADER_MAX = 1 << 20
"""Octets of the line: the longest list of recipients is a tenth of it."""
MESSAGE_MAX = 1 << 30
"""Octets of a message: more than any server takes."""
SECONDS = 60.0
"""Seconds without a byte from the other side, in addition to FilterTimeout."""


def send(link: BufferedRWPair, header: dict[str, Any], payload: bytes = b"") -> None:
    """Send a frame. Raises OSError."""
    link.write(json.dumps(header | {"size": len(payload)}).encode() + b"\n" + payload)
    link.flush()


def receive(link: BufferedRWPair) -> tuple[dict[str, Any], bytes] | None:
    """The next frame; None at the end. Raises OSError, ValueError for what is no frame."""
    line = link.readline(HEADER_MAX)
    if not line:
        return None
    header = json.loads(line)
    size = header["size"]
    if not 0 <= size <= MESSAGE_MAX:
        raise ValueError(f"{size} octets are no message")
    payload = link.read(size)
    if len(payload) != size:
        raise ConnectionError("the other side has ended")
    return header, payload


def order(settings: Settings, **request: Any) -> dict[str, Any]:
    """The header of a message: the settings that the filter depends on, and the envelope."""
    return {
        "chain": [str(line) for line in settings.filter],
        "command": settings.filter_command,
        "type": settings.filter_type.value,
        "timeout": settings.filter_timeout,
        "default": settings.filter_default.value,
        "temp_directory": settings.temp_directory,
        "hostname": settings.hostname,
        "milter_macro": settings.milter_macro,
        "quarantine_directory": settings.quarantine_directory,
        "quarantine_reply": settings.quarantine_reply,
        "request": request,
    }


def serve(connected: socket.socket, **who: Any) -> None:
    """Try messages until there are no more. Raises OSError, ValueError if the other side fails."""
    with connected, connected.makefile("rwb") as link, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        send(link, {"pid": os.getpid(), "uid": os.geteuid(), "gid": os.getegid(), **who})
        while (frame := receive(link)) is not None:
            header, text = frame
            try:
                trial = runner.run(_try(header, text))
            except (OSError, ValueError) as error:
                send(link, {"error": str(error)})
                continue
            send(link, _shown(trial), trial.judged)


async def _try(header: dict[str, Any], text: bytes) -> Trial:
    settings = Settings(
        filter=tuple(line for text in header["chain"] for line in parse_filter(text)),
        filter_command=header["command"],
        filter_type=FilterType(header["type"]),
        filter_timeout=header["timeout"],
        filter_default=FilterDefault(header["default"]),
        temp_directory=header["temp_directory"],
        hostname=header["hostname"],
        milter_macro=tuple((name, value) for name, value in header["milter_macro"]),
        quarantine_directory=header["quarantine_directory"],
        quarantine_reply=header["quarantine_reply"],
        filter_processes=1,
    )
    judge = make_filter(settings, keeps=False)
    if judge is None:
        raise ValueError("there is no filter to try")
    try:
        trial = await try_message(judge, _request(header["request"]), text)
        await _ended(judge)
    finally:
        judge.close()
    return trial


async def _ended(judge: Filter) -> None:
    """Wait until the processes of the filter have ended, as long as a worker does; shadows have their own time."""
    if isinstance(judge, ChainFilter):
        await judge.shadows.ended()
    for _ in range(int(ENDING / 0.02)):
        if not getattr(judge, "running", 0):
            return
        await asyncio.sleep(0.02)


def _envelope(wanted: Envelope | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    recipients = [recipient.decode("utf-8", "backslashreplace") for recipient in wanted.recipients]
    return {"sender": (wanted.sender or b"").decode("utf-8", "backslashreplace"), "recipients": recipients}


def _request(given: dict[str, Any]) -> FilterRequest:
    recipients = [os.fsencode(recipient) for recipient in given["recipients"]]
    return FilterRequest(
        connection=given["id"],
        envelope=Envelope(os.fsencode(given["sender"]), b"", recipients, [b""] * len(recipients)),
        client=given["client"],
        server=given["server"],
        helo=os.fsencode(given["helo"]),
        trace_id=given["id"],
    )


def _shown(trial: Trial) -> dict[str, Any]:
    verdict = trial.verdict
    return {
        "verdict": verdict.action.value,
        "reply": verdict.reply.wire.decode("ascii").strip() if verdict.reply is not None else None,
        "detail": verdict.detail,
        "failed": verdict.action.value == "tempfail" and not verdict.said,
        "seconds": round(trial.seconds, 3),
        "errors": trial.errors.decode("utf-8", "backslashreplace") or verdict.errors,
        "filters": [
            {"name": each.name, "verdict": each.verdict, "seconds": round(each.seconds, 3), "text": each.text}
            for each in verdict.judged
        ],
        "edits": list(trial.edits),
        "envelope": _envelope(verdict.envelope),
    }
