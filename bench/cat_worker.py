"""`cat` as a worker: it returns each message as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.worker import passed, run

if TYPE_CHECKING:
    from proxsmtp_tp.worker import Answer, Message


def judge(message: Message) -> Answer:
    """Return the same octets."""
    return passed().replace(message.read())


run(judge)
