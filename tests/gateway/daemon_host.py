"""A gateway with the real daemon: the tests break something, `doctor` examines it, and the fix that it names is run."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from proxsmtp_tp.cli import doctor_tls, main
from proxsmtp_tp.cli.doctor_daemon import FILTER_ASKER, announce, may_be_a_filters, status_of
from proxsmtp_tp.config.reader import read_config
from proxsmtp_tp.gateway import install
from proxsmtp_tp.gateway.doctor import examination, probe
from proxsmtp_tp.gateway.options import options_from
from proxsmtp_tp.gateway.state import Store
from proxsmtp_tp.lab.gateway import Instance
from proxsmtp_tp.lab.network import Host
from tests import typed_fixes
from tests.gateway.network import Network, inside, run

if TYPE_CHECKING:
    from proxsmtp_tp.gateway.doctor.findings import Finding, Setup

WAIT_SECONDS = 60.0
"""Seconds that anything may take on a loaded machine. Nothing waits that long unless it fails."""
STEP_SECONDS = 90.0
"""Seconds that a step of doctor may take here: other tests run at the same time."""
FILTER = '#!/bin/sh\ngrep -v "^X-Bad:"\n'


class DaemonHost:
    """One gateway. At first nothing is wrong: the rules are in place, and the daemon runs."""

    def __init__(self, **directives: str) -> None:
        # Not below pytest's folders, which the daemon's user may not enter.
        self.folder = folder = Path(tempfile.mkdtemp(prefix="host."))
        folder.chmod(0o755)
        self.net = Network()
        self.filter, self.temp = folder / "filter", folder / "temp"
        self.filter.write_text(FILTER)
        self.filter.chmod(0o755)
        self.temp.mkdir(mode=0o700)
        os.chown(self.temp, 65534, 65534)
        given = {"RuleInterface": "lan0", "User": "65534"}
        given |= {"FilterCommand": str(self.filter), "TempDirectory": str(self.temp)}
        wanted = {name: value for name, value in (given | directives).items() if value}
        self.instance = Instance(Host(self.gateway), folder, wanted, name="setup")
        self.state = folder / "state"
        # A client network behind a router on the client side.
        run(self.gateway, "ip", "route", "add", "203.0.113.0/24", "via", "192.0.2.10", "dev", "lan0")
        run(self.gateway, "sysctl", "-qw", "net.ipv6.conf.lan0.keep_addr_on_down=1")
        try:
            self.instance.start()
            if "RuleInterface" in wanted:
                self.install()
        except BaseException:
            self.close()
            raise

    @property
    def gateway(self) -> str:
        """The namespace of the gateway."""
        return self.net.gateway

    def store(self) -> Store:
        """A store; to be made inside of the gateway."""
        return Store(self.state)

    def install(self, *, or_refuse_mail: bool = False) -> None:
        """install-rules."""
        options = options_from(read_config(str(self.instance.config)))
        inside(self.gateway, lambda: install.install(options, self.store(), or_refuse_mail=or_refuse_mail))

    def setup(self) -> Setup:
        """Whom the doctor sees. To be called inside of the gateway."""
        path = str(self.instance.config)
        settings = read_config(path)
        setup = examination.setup_of(settings, path, examination.options_of(settings), Store(self.state))
        return replace(
            setup,
            status=lambda: status_of(settings.instance),
            may_be_a_filters=may_be_a_filters,
            filter_asker=FILTER_ASKER,
            announce=partial(announce, settings.instance),
            authorities=partial(doctor_tls.authorities, path, settings),
            step_seconds=STEP_SECONDS,
        )

    def look(self) -> list[Finding]:
        """What the doctor says, all of it."""
        return inside(self.gateway, lambda: list(examination.examine(self.setup())))

    def examine(self) -> list[Finding]:
        """What the doctor says is wrong, or was not seen."""
        found = self.look()
        assert len(found) > 10
        return [finding for finding in found if not finding.ok]

    def doctor(self) -> tuple[int, list[dict[str, Any]]]:
        """The command `doctor --json`, in this process: its exit status, and what it found."""
        arguments = ["doctor", "--json", "--state-dir", str(self.state), "-f", str(self.instance.config)]
        setup_of, said = examination.setup_of, io.StringIO()

        def slow(*given: Any) -> Setup:
            return replace(setup_of(*given), step_seconds=STEP_SECONDS)

        with patch.object(examination, "setup_of", slow), redirect_stdout(said):
            status = inside(self.gateway, lambda: main.main(arguments))
        return status, json.loads(said.getvalue())["findings"]

    def probe(self) -> list[Finding]:
        """What a probe finds, all of it."""
        return inside(self.gateway, lambda: list(probe.probe(self.setup())))

    def type(self, command: str) -> None:
        """Run a command that `doctor` names, in a shell of the gateway. A daemon stays in the background."""
        path = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
        if "proxsmtp-tp serve" in command:
            before = self.instance._daemon
            foreground = command.replace("proxsmtp-tp serve", "exec proxsmtp-tp serve")
            self.instance.launch("env", f"PATH={path}", "sh", "-c", foreground)
            if before is not None:
                before.wait(WAIT_SECONDS)
            typed_fixes.typed(command)
            return
        done = subprocess.run(
            self.instance.host.command("sh", "-c", command),
            capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "PATH": path},
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr}"
        typed_fixes.typed(command)

    def run(self, command: str) -> None:
        """Break something."""
        run(self.gateway, "sh", "-c", command)

    def restart(self) -> None:
        """Restart the daemon."""
        self.instance.stop()
        self.instance.start()

    def reload(self) -> None:
        """Have the daemon read its configuration again."""
        assert self.instance._daemon is not None
        start = len(self.instance.log)
        self.instance._daemon.send_signal(signal.SIGHUP)
        assert self.instance.wait_log("the new configuration is in force", start), self.instance.log

    def close(self) -> None:
        """End everything."""
        self.instance.host.stop_all()
        self.net.close()
        shutil.rmtree(self.folder)


def diagnosed(host: DaemonHost, step: str, text: str) -> str:
    """The fix of the finding that is expected."""
    found = host.examine()
    for finding in found:
        if step in finding.step and text in finding.text:
            return finding.fix
    raise AssertionError(f"no {step}: {text} in {found}")


def soon(condition: object) -> bool:
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.1)
    return False
