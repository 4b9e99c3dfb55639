"""The attributes of an object, of a class that mypyc has compiled too: that has neither __slots__ nor __dict__."""

from __future__ import annotations

from types import GetSetDescriptorType, MemberDescriptorType


def attributes(owner: object) -> dict[str, object]:
    """Those that have a value."""
    found = dict(getattr(owner, "__dict__", {}))
    for kind in type(owner).__mro__:
        for name, value in vars(kind).items():
            described = isinstance(value, (GetSetDescriptorType, MemberDescriptorType)) and name != "__dict__"
            if described and hasattr(owner, name):
                found[name] = getattr(owner, name)
    return found
