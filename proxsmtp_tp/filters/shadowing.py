"""mode=shadow: filters that judge a message after the client has its reply. Only the log learns what they say.

They get the message as the client sent it. At most AT_ONCE messages are judged at once in a worker; further ones are
left out, and the log says how many.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.mail import Mail
from proxsmtp_tp.telemetry.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxsmtp_tp.filters.interface import FilterRequest
    from proxsmtp_tp.filters.links import Link
    from proxsmtp_tp.filters.mail import Text
    from proxsmtp_tp.filters.verdict import Verdict

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Messages: each occupies space of SpoolLimit until it is judged, and no client waits for it."""


class Shadows:
    """The filters with mode=shadow, of one worker."""

    def __init__(self, links: Sequence[Link]) -> None:
        self.links = tuple(links)
        self._tasks: set[asyncio.Task[None]] = set()
        self._left_out = 0

    def judge(self, original: Text, request: FilterRequest, verdict: Verdict) -> None:
        """Let them judge a message that got this verdict. `original` is closed when it is not needed any more."""
        if len(self._tasks) >= AT_ONCE:
            self._left_out += 1
            original.close()
            return
        task = asyncio.get_running_loop().create_task(self._judge(original, request, verdict))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ended(self) -> None:
        """Wait until they have judged what they have."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def close(self) -> None:
        """The worker ends."""
        for task in self._tasks:
            task.cancel()

    async def _judge(self, original: Text, request: FilterRequest, verdict: Verdict) -> None:
        texts: list[Text] = [original]
        try:
            for link in self.links:
                answer = await link.ask(Mail.of(original), request, texts.append)
                said = answer.judged
                log.info(
                    "%s: shadow filter %s: would %s after %.3f s, the verdict was %s: %s, id=%s",
                    request.connection,
                    said.name,
                    said.verdict,
                    said.seconds,
                    verdict.action.value,
                    quoted(said.text),
                    request.trace_id,
                )
        except OSError as error:
            log.warning("%s: a shadow filter cannot read the message: %s", request.connection, error)
        except Exception:
            log.exception("%s: a shadow filter ended with an error", request.connection)
        finally:
            for text in texts:
                text.close()
            self._tell_left_out()

    def _tell_left_out(self) -> None:
        if self._left_out:
            log.info("shadow filters did not get %d messages: they are too slow", self._left_out)
            self._left_out = 0
