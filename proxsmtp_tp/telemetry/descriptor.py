"""A file descriptor that is closed with the object that owns it."""

from __future__ import annotations

import os


class Descriptor:
    """Closes `number` when nothing refers to it any more. (weakref.finalize does not work with a compiled class.)"""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)
