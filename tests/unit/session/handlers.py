"""Something to happen before each event of every session, whichever build runs: compiled methods cannot be replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxsmtp_tp.session.session import TRANSITIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from proxsmtp_tp.session.dialogue import Dialogue

    Handler = Callable[[Dialogue, Any], None]


def before_handlers(monkeypatch: pytest.MonkeyPatch, first: Handler) -> None:
    """Call `first` with the dialogue and the event before the handler of the event."""

    def both(handler: Handler) -> Handler:
        def called(d: Dialogue, event: Any) -> None:
            first(d, event)
            handler(d, event)

        return called

    for handlers in {id(each): each for each in TRANSITIONS.values()}.values():  # phases share them
        for kind, handler in list(handlers.items()):
            monkeypatch.setitem(handlers, kind, both(handler))
