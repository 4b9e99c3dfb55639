"""posix_spawn(3) of the C library, called without the interpreter's lock: other threads run in the meantime.

The call takes until the new program is executed (vfork(2)): 0.2 to 1 ms, more than an event loop may stand still.
os.posix_spawn holds the lock for all of it.
"""

from __future__ import annotations

import ctypes
import os
import signal
from ctypes import c_char_p, c_int, c_short, c_void_p
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_SETSIGDEF, _SETSIGMASK, _SETSID = 0x04, 0x08, 0x80
"""Flags of <spawn.h>, the same in glibc and musl."""
_ATTRIBUTES, _ACTIONS, _SIGNALS = 1024, 256, 128
"""Octets: more than posix_spawnattr_t (336), posix_spawn_file_actions_t (80), sigset_t (128) have on any platform."""

_STRINGS: Final = ctypes.POINTER(c_char_p)


class _Library:
    """The functions, and the attributes of every process: default handlers, an empty mask, a session of its own."""

    def __init__(self) -> None:
        self.spawn = ctypes.CDLL(None).posix_spawn
        libc = ctypes.PyDLL(None)  # with the lock: these return at once
        self.spawn.argtypes = (ctypes.POINTER(c_int), c_char_p, c_void_p, c_void_p, _STRINGS, _STRINGS)
        self.init = libc.posix_spawn_file_actions_init
        self.destroy = libc.posix_spawn_file_actions_destroy
        self.dup2 = libc.posix_spawn_file_actions_adddup2
        self.dup2.argtypes = (c_void_p, c_int, c_int)
        self.open = libc.posix_spawn_file_actions_addopen
        self.open.argtypes = (c_void_p, c_int, c_char_p, c_int, ctypes.c_uint)
        self.attributes = ctypes.create_string_buffer(_ATTRIBUTES)
        _check(libc.posix_spawnattr_init(self.attributes))
        libc.posix_spawnattr_setflags.argtypes = (c_void_p, c_short)
        _check(libc.posix_spawnattr_setflags(self.attributes, _SETSIGDEF | _SETSIGMASK | _SETSID))
        none, all_ = ctypes.create_string_buffer(_SIGNALS), ctypes.create_string_buffer(_SIGNALS)
        _check(libc.sigemptyset(none))
        _check(libc.sigemptyset(all_))
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            _check(libc.sigaddset(all_, number))
        _check(libc.posix_spawnattr_setsigmask(self.attributes, none))
        _check(libc.posix_spawnattr_setsigdefault(self.attributes, all_))


_library: _Library | None = None


def posix_spawn(
    path: bytes, arguments: Sequence[bytes], environment: Sequence[bytes], descriptors: Sequence[int | None]
) -> int:
    """Execute `path` in a new process and session; the process id. Raises OSError, also if it cannot be executed.

    `environment`: NAME=VALUE. `descriptors`: what becomes 0, 1 and so on, each above that; None: /dev/null. No string
    may have a NUL. All other descriptors must be close-on-exec.
    """
    global _library  # noqa: PLW0603  (made at the first use: most processes of this program start none)
    library = _library = _library or _Library()
    actions: Any = ctypes.create_string_buffer(_ACTIONS)
    _check(library.init(actions))
    try:
        for number, descriptor in enumerate(descriptors):
            if descriptor is None:
                _check(library.open(actions, number, b"/dev/null", os.O_RDWR, 0))
            else:
                _check(library.dup2(actions, descriptor, number))
        pid = c_int()
        given = _strings(arguments), _strings(environment)
        _check(library.spawn(ctypes.byref(pid), path, actions, library.attributes, *given))
    finally:
        library.destroy(actions)
    return pid.value


def _strings(strings: Sequence[bytes]) -> ctypes.Array[c_char_p]:
    return (c_char_p * (len(strings) + 1))(*strings)


def _check(error: int) -> None:
    """posix_spawn and its helpers return the error's number."""
    if error:
        raise OSError(abs(error), os.strerror(abs(error)))
