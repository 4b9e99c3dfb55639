"""Installs and removals that are killed (SIGKILL) at a chosen step: `python -m tests.gateway.kill_at_step STATE_DIR`.

Runs in the gateway's namespace. Each line of standard input is one job, [action, changes of the options, step]; for
each a child is forked, which kills itself before the step of that number. Answers with one line: [killed, steps done].

A step is whatever changes the host or the state file: a load of nft, a policy rule, a route, one iptables table of one
IP version, a state file written, renamed into place, or deleted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.gateway import install, iptables, nftables, routing, survey
from proxsmtp_tp.gateway.plan import Fail, Method, Mode
from proxsmtp_tp.gateway.state import Store
from tests.gateway.rules_host import options

if TYPE_CHECKING:
    from collections.abc import Callable

_KINDS: dict[str, Callable[[str], Any]] = {"method": Method, "mode": Mode, "fail": Fail}


class Killer:
    """Counts steps, and dies before one of them."""

    def __init__(self, at: int | None, report: int) -> None:
        self._at, self._report, self._steps = at, report, 0

    def step(self) -> None:
        """Called before each step."""
        if self._steps == self._at:
            os.write(self._report, str(self._steps).encode())
            os.kill(os.getpid(), signal.SIGKILL)
        self._steps += 1

    def done(self) -> None:
        """Nothing more to do."""
        os.write(self._report, str(self._steps).encode())

    def wrap(self, owner: Any, name: str) -> None:
        """Make a function a step."""
        original = getattr(owner, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            self.step()
            return original(*arguments, **named)

        setattr(owner, name, counted)

    def split_iptables(self) -> None:
        """Make each commit of a table a step."""
        work = iptables.work

        def step_by_step(jobs: list[dict[str, Any]], *, scratch: bool = False) -> list[dict[str, Any]]:
            if scratch or not jobs or jobs[0]["action"] != "replace":
                return work(jobs, scratch=scratch)
            for job in jobs:
                fatal = -1 if self._at is None else self._at - self._steps
                if 0 <= fatal < len(job["steps"]):
                    work([job | {"steps": job["steps"][:fatal]}])
                    self._steps += fatal
                    self.step()
                self._steps += len(job["steps"])
                work([job])
            return [{} for _ in jobs]

        iptables.work = step_by_step


def _child(job: list[Any], state: Path, report: int) -> None:
    action, changes, at = job
    killer = Killer(at, report)
    killer.wrap(nftables, "load")
    killer.wrap(routing, "change_rule")
    killer.wrap(routing, "change_route")
    killer.wrap(Store, "write")
    killer.wrap(Path, "replace")
    killer.wrap(Path, "unlink")
    killer.split_iptables()
    survey.require_method = lambda plan: None  # looks only, and takes a third of the time
    if action == "install":
        given = {name: _KINDS[name](value) if name in _KINDS else value for name, value in changes.items()}
        install.install(options(**given), Store(state))
    else:
        install.remove("test", Store(state))
    killer.done()


def main() -> None:
    """Serve jobs until standard input ends."""
    for line in sys.stdin:
        heard, report = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _child(json.loads(line), Path(sys.argv[1]), report)
                os._exit(0)
            finally:
                sys.stderr.flush()
                os._exit(70)
        os.close(report)
        _, status = os.waitpid(child, 0)
        with os.fdopen(heard, "rb") as pipe:
            steps = int(pipe.read() or b"-1")
        print(json.dumps([os.WIFSIGNALED(status), steps]), flush=True)


if __name__ == "__main__":
    main()
