"""Parsers of numbers and words, for directives (`values`) and for settings of filters (`filter_lines`)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from enum import Enum

INTEGER_MAX = 9_999_999_999
"""The largest whole number that is read: it has ten digits."""


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """A parser of whole numbers in a range; it raises ValueError. A plus sign is accepted, as in 1.10."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\+?[0-9]{1,10}", text) or not least <= int(text) <= most:
            raise ValueError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return parse


def one_of(words: type[Enum]) -> Callable[[str], Enum]:
    """A parser of the values of an Enum, in upper or lower case; it raises ValueError."""

    def parse(text: str) -> Enum:
        try:
            return words(text.lower())
        except ValueError:
            raise ValueError(f"{text!r} is not one of {', '.join(str(word.value) for word in words)}") from None

    return parse
