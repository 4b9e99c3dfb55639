"""A milter with the real libmilter (Debian's python3-milter) that reads each message and accepts it.

It answers only at the end of the message, as rspamd, opendkim and most filters do.

Usage: /usr/bin/python3 accepting_milter.py SOCKET
"""

from __future__ import annotations

import sys

sys.path.insert(0, "/usr/lib/python3/dist-packages")

import Milter  # type: ignore[import-not-found]


class Accepting(Milter.Base):  # type: ignore[misc]
    """One message. Without these methods libmilter would not ask for header and body."""

    @Milter.noreply  # type: ignore[untyped-decorator]
    def header(self, _name: str, _value: str) -> int:
        """A header field."""
        return int(Milter.CONTINUE)

    @Milter.noreply  # type: ignore[untyped-decorator]
    def body(self, _chunk: bytes) -> int:
        """A part of the body."""
        return int(Milter.CONTINUE)

    def eom(self) -> int:
        """The end of the message."""
        return int(Milter.ACCEPT)


Milter.factory = Accepting
Milter.runmilter("accepting", "unix:" + sys.argv[1], 240)
