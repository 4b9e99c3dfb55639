"""Errors that an operator sees: each text is one line that says the reason and what to do."""

from __future__ import annotations


class GatewayError(Exception):
    """An operation failed. The host is as before unless the text says otherwise."""


class RequirementError(GatewayError):
    """Something is missing, found before any change. `problems` has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class MailRefusedError(GatewayError):
    """The rules may not be installed. Instead, each connection that they would intercept is refused."""


class StateError(GatewayError):
    """The file that says what is installed cannot be written or deleted."""
