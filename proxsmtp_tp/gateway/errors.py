"""What can go wrong on the host, for the operator: each text is one line that says why and what to do."""

from __future__ import annotations


class GatewayError(Exception):
    """It did not work; the host is as it was before unless the text says otherwise."""


class RequirementError(GatewayError):
    """Something is missing, found before any change. `problems` has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class MailRefusedError(GatewayError):
    """The rules may not be installed, and in their place each connection that they would intercept is refused."""


class StateError(GatewayError):
    """The file that says what is installed cannot be written or deleted."""
