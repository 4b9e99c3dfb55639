"""Install on trial: rules that are undone unless they are confirmed in time.

A watchdog process (`python -m proxsmtp_tp.gateway.confirm`) is started before the first change and runs in a session of
its own, so it also works after the administrator's connection, or the installing process, has ended. The state file
holds the token of the trial. Confirming, removing or replacing the rules changes the token, and the watchdog ends.

Times are those of CLOCK_BOOTTIME, which also counts while the host is suspended.
"""

from __future__ import annotations

import argparse
import logging
import logging.handlers
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.gateway import install
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.python import module_command
from proxsmtp_tp.gateway.state import Phase, State, Store

if TYPE_CHECKING:
    from proxsmtp_tp.gateway.install import Outcome
    from proxsmtp_tp.gateway.plan import Options

SYSLOG = Path("/dev/log")
_STEP = 0.2  # seconds between two checks of the watchdog whether the trial is still open
_GRACE = 60.0  # seconds after the deadline in which the watchdog tries to get the lock

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial: its token, and when it ends (seconds of CLOCK_BOOTTIME)."""

    token: str
    deadline: float

    @property
    def remaining(self) -> float:
        """Seconds until the rules are undone."""
        return self.deadline - now()


def now() -> float:
    """Seconds of CLOCK_BOOTTIME."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def install_on_trial(options: Options, store: Store, seconds: float) -> tuple[Outcome, Trial | None]:
    """Like `install.install`, but undone after `seconds`. If the rules were in place already, there is no trial."""
    trial = Trial(secrets.token_hex(8), now() + seconds)
    watchdog = _start_watchdog(options.instance, store, trial)
    try:
        outcome = install.install(options, store, deadline=trial.deadline, token=trial.token)
    except BaseException:
        watchdog.terminate()
        raise
    if not outcome.changed:
        watchdog.terminate()
        return outcome, None
    return outcome, trial


def _start_watchdog(instance: str, store: Store, trial: Trial) -> subprocess.Popen[bytes]:
    command = module_command("proxsmtp_tp.gateway.confirm", instance, trial.token, str(trial.deadline))
    return subprocess.Popen(
        [*command, "--state-dir", str(store.directory)],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def confirm(instance: str, store: Store, token: str) -> bool:
    """Keep the rules of a trial. False if it is over: undone, removed or replaced."""
    with store.lock():
        state = store.read(instance)
        if state is None or state.token != token or state.phase is not Phase.INSTALLED:
            return False
        store.write(State(Phase.INSTALLED, state.plan))
        return True


def undo(instance: str, store: Store, token: str) -> bool:
    """Restore what was installed before the trial. False if the trial is over already."""
    with store.lock():
        state = store.read(instance)
        if state is None or state.token != token:
            return False
        install.restore(state.previous, instance, install.Owned.by(instance, state, store), store)
        return True


def wanted(instance: str, store: Store, token: str) -> bool:
    """Whether the trial is still open."""
    state = store.read(instance)
    return state is not None and state.token == token


def watch(instance: str, store: Store, trial: Trial) -> bool:
    """Wait for the deadline, then undo. False if the trial ended otherwise."""
    begun = False
    while trial.remaining > 0:
        open_now = wanted(instance, store, trial.token)
        if begun and not open_now:
            return False
        begun = begun or open_now
        time.sleep(min(_STEP, max(0.0, trial.remaining)))
    while trial.remaining > -_GRACE:
        try:
            return undo(instance, store, trial.token)
        except (GatewayError, OSError) as error:
            _log.warning("the unconfirmed rules of instance %s are not undone yet: %s", instance, error)
            time.sleep(1)
    _log.error("the unconfirmed rules of instance %s could not be undone: proxsmtp-tp remove-rules", instance)
    return False


def main() -> int:
    """The watchdog."""
    parser = argparse.ArgumentParser()
    parser.add_argument("instance")
    parser.add_argument("token")
    parser.add_argument("deadline", type=float)
    parser.add_argument("--state-dir", type=Path, required=True)
    args = parser.parse_args()
    if SYSLOG.exists():
        logging.basicConfig(handlers=[logging.handlers.SysLogHandler(str(SYSLOG))])
    if watch(args.instance, Store(args.state_dir), Trial(args.token, args.deadline)):
        _log.warning("the rules of instance %s were not confirmed, and are undone", args.instance)
    return 0


if __name__ == "__main__":
    sys.exit(main())
