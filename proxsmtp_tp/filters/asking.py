"""One question to a server that judges mail, and its answer: the connection of a milter, clamd, spamd or rspamd.

The question is written while the answer is read: a server may answer, and close, before it has read all of it. Memory
is limited: no more is written than the server reads. Whatever happens, the connection is closed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, TypeVar

from proxsmtp_tp.filters.mail import joined
from proxsmtp_tp.filters.member import FilterFailedError
from proxsmtp_tp.filters.protocols.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from proxsmtp_tp.filters.streams import Servers, Stream

READ_SIZE = 16 * 1024
"""Octets read at once, and handled in one turn of the event loop: ten milliseconds where each packet has one octet."""

LAST_WORDS = 1024
"""Octets that may wait to be sent when a connection is closed in order, such as QUIT. A server that does not read more
than that could keep the connection for ever."""

_Answer = TypeVar("_Answer")


class Reader(Protocol):
    """A reader of one answer, such as `protocols.answers.AnswerReader`."""

    @property
    def done(self) -> bool:
        """The answer is complete."""

    def feed(self, data: bytes) -> None:
        """Take what came."""

    def closed(self) -> None:
        """The server has closed the connection."""


class connection:  # noqa: N801  (used like a function)
    """An asynchronous context: a connection for one question. `stream`: one that there is already.

    What goes wrong with it, or is no answer, is raised as FilterFailedError. At the end it is closed, unless `kept`.
    """

    def __init__(self, servers: Servers, stream: Stream | None = None) -> None:
        self.kept = False
        self._servers = servers
        self._stream = stream

    async def __aenter__(self) -> Stream:
        self._stream = self._stream or await self._servers.open()
        return self._stream

    async def __aexit__(self, _kind: object, error: BaseException | None, _at: object) -> None:
        if self._stream is None:
            raise AssertionError("the end of a connection without its beginning")
        if error is None and self.kept:
            return
        transport = self._stream.transport
        if error is None and self._stream.unsent <= LAST_WORDS:
            transport.close()  # the rest is sent, because the server has read the question
        if not transport.is_closing():
            transport.abort()
        if isinstance(error, ProtocolError):
            raise FilterFailedError(f"{self._stream.address}: {error}") from error
        if isinstance(error, ConnectionError):
            raise FilterFailedError(f"{self._stream.address}: {_reason(error)}") from error


async def ask(stream: Stream, question: Iterable[bytes], read: Callable[[Stream], Awaitable[_Answer]]) -> _Answer:
    """Write a question and read its answer. Raises ProtocolError if the answer came before the end of the question.

    Raises what `read` raises: it should look for errors in the answer, which may come early. Raises what `question`
    raises, such as OSError for a message that cannot be read back.
    """
    sender = asyncio.get_running_loop().create_task(_send(stream, question), name=f"question to {stream.address}")
    try:
        answer = await read(stream)
        await asyncio.sleep(0)  # the sender may have written all, but not run to its end
        if not sender.done() or stream.unsent:
            raise ProtocolError("it answered before the end of the message was sent")
        sender.result()
    except (ConnectionError, ProtocolError) as error:
        failure = sender.exception() if sender.done() else error
        if failure is not None and not isinstance(failure, ConnectionError | ProtocolError):
            raise failure from None
        if failure is not None and isinstance(error, ConnectionError):
            # Its answer, if it gave one, is lost with the connection.
            raise ProtocolError("it closed the connection before it had read the whole message") from error
        raise
    finally:
        sender.cancel()
        await asyncio.wait([sender])
        if not sender.cancelled():
            sender.exception()  # retrieved, so that the event loop does not log it
    return answer


async def _send(stream: Stream, question: Iterable[bytes]) -> None:
    try:
        for piece in joined(question):
            stream.write(piece)
            await stream.drain()
            await asyncio.sleep(0)  # drain gives way only where the server is slow
    except ConnectionError:
        raise  # the reader gets it, too
    except Exception:
        stream.transport.abort()  # the message is lost: no answer to a part of it
        raise


async def read_whole(stream: Stream, reader: Reader, taken: Callable[[], None] = lambda: None) -> None:
    """Read until `reader` is done; `taken` is called after each piece. Raises ProtocolError."""
    while not reader.done:
        data = await stream.read(READ_SIZE)
        if not data:
            reader.closed()
            break
        reader.feed(data)
        taken()
        if stream.spoke:
            await asyncio.sleep(0)  # more was read ahead


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
