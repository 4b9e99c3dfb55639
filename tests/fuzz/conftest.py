"""Random dialogues over sockets are played on the stage of the tests of sockets."""

from __future__ import annotations

from tests.unit.net.running import fast_ticks, open_stage, pytest_pyfunc_call

__all__ = ["fast_ticks", "open_stage", "pytest_pyfunc_call"]
