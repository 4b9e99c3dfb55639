"""The description of one directive."""

from __future__ import annotations

from dataclasses import dataclass, fields

from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.config.values import Kind

_DEFAULTS = {field.name: field.default for field in fields(Settings)}


@dataclass(frozen=True, slots=True)
class Directive:
    """One row. `since` is the version that introduced it: "1.10" for the directives of proxsmtpd."""

    name: str
    field: str
    kind: Kind
    text: str
    since: str = "1.10"
    default_text: str = ""
    """The default in words, if the value alone does not explain it."""

    @property
    def default(self) -> object:
        """The default of the field in `Settings`."""
        return _DEFAULTS[self.field]

    @property
    def shown_default(self) -> str:
        """The default as documentation shows it."""
        if self.default_text:
            return self.default_text
        return "none" if self.default in {None, ()} else self.kind.show(self.default)
