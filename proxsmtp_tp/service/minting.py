"""The minting process: it alone reads the keys of our CAs, and makes certificates for the workers.

The master starts it before the first worker, and again when it ends. It holds the keys' files open for it (opened
before root was given up), and both ends of the socket: questions that wait when the process dies are answered by the
next one. A worker has the other end only, and a filter has none. The process ends when the last worker has ended, so
workers that drain beside the next daemon are still served.
"""

from __future__ import annotations

import ctypes
import datetime as dt
import logging
import os
import signal
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from proxsmtp_tp.certificates import authority
from proxsmtp_tp.certificates.leaf import LeafKey, mint
from proxsmtp_tp.certificates.material import CertificateError
from proxsmtp_tp.certificates.requests import REQUEST_MAX, decode_request, encode_answer, encode_refusal
from proxsmtp_tp.service.generation import STABLE, backoff, ending
from proxsmtp_tp.service.key_files import NOT_LENT, CaFiles, KeyFileError, read_all, take_ca
from proxsmtp_tp.service.worker import settle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

    from proxsmtp_tp.certificates.authority import Authority

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4  # linux/prctl.h


class Minting:
    """The process, in the master. Raises KeyFileError if a key's file cannot be opened.

    `lent`: see `key_files.take_ca`. `workers_end` is what workers inherit.
    """

    def __init__(self, files: Sequence[CaFiles], lent: Mapping[bool, int] = NOT_LENT) -> None:
        self._certificates: list[tuple[CaFiles, bytes]] = []
        self._keys: list[int] = []
        try:
            for each in files:
                certificate, key = take_ca(each, lent)
                self._certificates.append((each, certificate))
                self._keys.append(key)
        except KeyFileError:
            self._close_keys()
            raise
        self.workers_end, self._process_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid: int | None = None
        self._born = 0.0
        self._failures = 0
        self._start_at = 0.0
        self._closed = False

    @property
    def pid(self) -> int | None:
        """None: it has ended, and is started again soon."""
        return self._pid

    def due(self) -> float:
        """When `step` must be called next, on the monotonic clock."""
        return float("inf") if self._pid is not None or self._closed else self._start_at

    def step(self, close_others: Callable[[], None]) -> None:
        """Start the process if it does not run. `close_others` closes, in it, what only the master may have."""
        if self._pid is not None or self._closed or time.monotonic() < self._start_at:
            return
        master = os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            if (pid := os.fork()) == 0:
                self._run(close_others, master)
        except OSError as error:
            self._failures += 1
            self._start_at = time.monotonic() + backoff(self._failures)
            log.error("cannot start the minting process: %s: raise LimitNPROC or TasksMax", error.strerror)  # noqa: TRY400
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._pid, self._born = pid, time.monotonic()
        log.debug("minting process %d started", pid)

    def reaped(self, pid: int, status: int) -> bool:
        """A child of the master has ended. False: it is not this process."""
        if pid != self._pid:
            return False
        self._pid = None
        now = time.monotonic()
        self._failures = 0 if now - self._born >= STABLE else self._failures + 1
        self._start_at = now + backoff(self._failures)
        if not self._closed:
            log.error("minting process %d ended: %s: it is started again", pid, ending(status))
        return True

    def close_in_worker(self) -> None:
        """In a process that was just forked: it may send requests, and has no key."""
        self._process_end.close()
        self._close_keys()

    def close(self) -> None:
        """The daemon ends. The process ends with the last worker."""
        self._closed = True
        self.workers_end.close()
        self._process_end.close()
        self._close_keys()

    def _close_keys(self) -> None:
        while self._keys:
            os.close(self._keys.pop())

    def _run(self, close_others: Callable[[], None], master: int) -> NoReturn:
        """The life of the process. Never returns into the master's code."""
        code = 1
        keys, self._keys = self._keys, []
        process_end = self._process_end.dup()
        try:
            self.workers_end.close()
            settle(close_others, master)
            libc = ctypes.CDLL(None)
            libc.prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)  # workers may drain after the master's end
            libc.prctl(
                _PR_SET_DUMPABLE, 0, 0, 0, 0
            )  # a filter of the same user cannot trace it, and no core has the key
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # for the master, from a terminal
            now = dt.datetime.now(dt.UTC)
            cas = {
                each.trusted: authority.read(pem, read_all(key), str(each.certificate), now)
                for (each, pem), key in zip(self._certificates, keys, strict=True)
            }
            for key in keys:
                os.close(key)
            serve(process_end, cas)
            code = 0
        except CertificateError as error:
            log.critical("the minting process cannot start: %s", error)
        except BaseException:
            log.critical("minting process %d: internal error", os.getpid(), exc_info=True)
        finally:
            with suppress(BaseException):
                logging.shutdown()
            os._exit(code)


def serve(questions: socket.socket, cas: dict[bool, Authority]) -> None:
    """Answer until no worker is left. `cas`: by whether clients trust the CA."""
    key = LeafKey()
    while True:
        data, descriptors, _, _ = socket.recv_fds(questions, REQUEST_MAX, 1)
        if not data:
            return
        if not descriptors:
            continue  # without a way to answer
        _reply(descriptors[0], answer(data, cas, key))


def _reply(descriptor: int, octets: bytes) -> None:
    """Send it; the worker that asked may have ended, or may have sent something that is no socket."""
    try:
        asker = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        return
    with asker, suppress(OSError):
        asker.setblocking(False)
        asker.send(octets)


def answer(data: bytes, cas: dict[bool, Authority], key: LeafKey) -> bytes:
    """The answer to one question."""
    try:
        request = decode_request(data)
        return encode_answer(mint(cas[request.verified], request.names, key, dt.datetime.now(dt.UTC)))
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        return encode_refusal(str(error))
