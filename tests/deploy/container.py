"""A Debian machine with a real systemd, in a network namespace of the lab: systemd-nspawn(1) over overlay layers.

Made for machines whose own process 1 is not systemd. Run under `proxsmtp_tp.lab.isolate`: the mounts, the processes
and the namespaces end with it. What the kernel keeps beyond that, the control groups, `stop` removes.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from proxsmtp_tp.lab.network import LabError

BOOT_SECONDS = 90.0
"""A boot takes a second on an idle machine."""
STOP_SECONDS = 60.0
"""A shutdown waits for a daemon that finishes its transactions: TimeoutStopSec of its unit."""
_HIERARCHIES = Path("/sys/fs/cgroup")
# Its own control group in each hierarchy that systemd uses: the container's systemd takes it for its root.
_START = """
for group in $1; do mkdir -p "$group"; echo $$ >"$group/cgroup.procs"; done
shift
exec setsid "$@"
"""


@dataclass
class Container:
    """One machine. `layers`: the folders under its root, the uppermost first; what it writes lies in `directory`."""

    name: str
    directory: Path
    layers: Sequence[Path]
    _nspawn: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _leader: int = field(default=0, init=False)

    @property
    def root(self) -> Path:
        """Its root, also while it is stopped."""
        return self.directory / "root"

    def mount(self) -> None:
        """Lay the layers over each other. Once for the life of the machine."""
        for part in ("upper", "work", "root"):
            (self.directory / part).mkdir(parents=True)
        lower = ":".join(map(str, self.layers))
        options = f"lowerdir={lower},upperdir={self.directory}/upper,workdir={self.directory}/work"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(self.root)], check=True)
        (self.root / "etc/hostname").write_text(f"{self.name}\n")
        (self.root / "etc/hosts").write_text(f"127.0.0.1 localhost {self.name}\n::1 localhost\n")

    def start(self) -> None:
        """Boot in the network namespace of the machine's name. Raises LabError if it does not come up."""
        command = [
            "systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=read-only",
            f"--directory={self.root}", f"--machine={self.name}", "--resolv-conf=off", "--timezone=off",
            f"--network-namespace-path=/run/netns/{self.name}", "--capability=CAP_NET_ADMIN,CAP_NET_RAW",
        ]  # fmt: skip
        with self._console.open("wb") as console:
            self._nspawn = subprocess.Popen(
                ["sh", "-ec", _START, "start", " ".join(map(str, self._groups())), *command],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                # The machine sets its own network's sysctls, as a real one does at boot.
                env={**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"},
            )
        end = time.monotonic() + BOOT_SECONDS
        while not self._booted():
            if time.monotonic() > end or self._nspawn.poll() is not None:
                raise LabError(f"{self.name} does not boot:\n{self._console.read_text(errors='replace')[-3000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Shut down in order, as `poweroff` does. Idempotent."""
        if self._nspawn is None:
            return
        with suppress(LabError):
            self.run("systemctl", "poweroff", check=False)
        try:
            self._nspawn.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        self._nspawn, self._leader = None, 0
        for group in self._groups():
            for folder, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):  # the last process of a unit has not ended yet
                    Path(folder).rmdir()

    def run(self, *command: str, text: str = "", seconds: float = 120.0, check: bool = True) -> str:
        """Run to the end inside; its output. Raises LabError if it fails (and `check`), or takes longer."""
        try:
            done = subprocess.run(
                ["nsenter", "-t", str(self._leader), "-a", "--", "env", "-i", *_ENVIRONMENT, *command],
                input=text, capture_output=True, encoding="utf-8", errors="backslashreplace", timeout=seconds,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.name}: {' '.join(command)[:500]} took longer than {seconds:g} s") from error
        if check and done.returncode != 0:
            said = (done.stderr + done.stdout).strip()
            raise LabError(f"{self.name}: {' '.join(command)[:500]} exited with {done.returncode}: {said}")
        return done.stdout

    @property
    def _console(self) -> Path:
        return self.directory / "console"

    def _groups(self) -> list[Path]:
        mixed = [_HIERARCHIES / kind for kind in ("systemd", "unified")]
        parents = [path for path in mixed if path.is_dir()] or [_HIERARCHIES]
        # No namespace tells one run of the tests from another here, but their directories differ.
        run = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:12]
        return [parent / f"proxsmtp-{self.name}-{run}" for parent in parents]

    def _booted(self) -> bool:
        assert self._nspawn is not None
        # The first child only prepares the second, which is the machine's process 1.
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        if not children:
            return False
        self._leader = int(children[-1])
        try:
            state = self.run("systemctl", "is-system-running", check=False).strip()
        except LabError:
            return False
        if state == "degraded":
            raise LabError(f"{self.name} boots badly:\n{self.run('systemctl', '--failed', '--no-pager', check=False)}")
        return state == "running"


_ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL=C.UTF-8",
    "HOME=/root",
)  # fmt: skip
