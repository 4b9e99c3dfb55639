"""python-iptables in processes of its own, one for each job: `python -m proxsmtp_tp.gateway.xtables_worker`.

A job is for one IP version. It runs in a process of its own, because libxtables keeps its extensions in global
variables: after use for IPv4, it parses matches for IPv6 with the wrong revision, and they are missing without an
error. That library also ends the process on some errors.

Standard input: a list of jobs in JSON, each {"version": 4|6, "action": ..., "chains": [...], "owned": [...], ...}.
`chains` are the wanted chains, made by `iptables.encode`; `owned` lists [table, built-in chain, chain] of every chain
that may be ours. Action `replace`, with `steps`, pairs of a table and a boolean: one commit for each pair, in that
order, after which the table has exactly the wanted chains of ours (true) or none (false). Action `examine`, with
`tables`: report our existing chains and the wanted ones in the same form. Action `count`, with `tables`: the counters
of our existing chains (`chains` is not needed). Action `list`, with `tables`: all chains that are not built in
(neither `chains` nor `owned` is needed). Standard output: a list in JSON, for each job [exit status of its process, its
answer in JSON, the reason of a failure]. Exit status: 0, or 1 with the reason on standard error.

Guarantees: holds the lock of iptables (/run/xtables.lock) from reading a table to writing it, so that no change of
another program is lost. A parameter that python-iptables does not accept is an error.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import signal
import sys
import sysconfig
import time
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

XTABLES_LOCK = "/run/xtables.lock"
LOCK_WAIT = 10.0  # seconds; iptables holds the lock for one command; restoring a large ruleset takes about one second
PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SCRATCH = "PXMEANT"


def import_iptc() -> Any:
    """Import python-iptables, an optional library, without its slow search for other libraries.

    By itself, it starts gcc and ld to find its own library, has ldconfig read all libraries, and imports setuptools
    to get the name of one directory: that takes four times as long as the rest of this process. It takes the folders
    from the environment.
    """
    if found := find_spec("iptc"):
        own = str(Path(str(found.origin)).parents[1])
        folders = [folder for folder in (os.environ.get("IPTABLES_LIBDIR"), own) if folder]
        os.environ["IPTABLES_LIBDIR"] = ":".join(folders)
    extensions = Path("/usr/lib", sysconfig.get_config_var("MULTIARCH") or "", "xtables")  # Debian's folder
    if extensions.is_dir():
        os.environ.setdefault("XTABLES_LIBDIR", str(extensions))
    sys.modules.setdefault("distutils", None)  # type: ignore[arg-type]  # then it uses sysconfig
    import iptc  # noqa: PLC0415 - see above

    return iptc


class Worker:
    """The tables of one IP version."""

    def __init__(self, version: int) -> None:
        self._iptc = import_iptc()
        self._v6 = version == 6
        self._tables: dict[str, Any] = {}

    def table(self, name: str) -> Any:
        """A table without automatic commits."""
        if name not in self._tables:
            kind = self._iptc.Table6 if self._v6 else self._iptc.Table
            self._tables[name] = kind(name, autocommit=False)
        return self._tables[name]

    def rule(self, data: dict[str, Any]) -> Any:
        """Make a rule. Raises for everything that the library does not support."""
        rule = self._iptc.Rule6() if self._v6 else self._iptc.Rule()
        for name, value in data["base"]:
            setattr(rule, name.replace("-", "_"), value)
        for name, parameters in data["matches"]:
            self._set(rule.create_match(name), parameters)
        name, parameters = data["target"]
        self._set(rule.create_target(name), parameters)
        return rule

    @staticmethod
    def _set(extension: Any, parameters: list[Any]) -> None:
        for name, values in parameters:
            extension.set_parameter(name, values if values[:1] == ["!"] or len(values) > 1 else values[0])

    def _rules(self, table: str, chain: str) -> list[Any]:
        rules: list[Any] = self._iptc.Chain(self.table(table), chain).rules
        return rules

    def decoded(self, rules: list[Any]) -> list[str]:
        """Rules, each as JSON without counters."""
        from iptc import easy  # noqa: PLC0415 - see above

        found = []
        for rule in rules:
            data = easy.decode_iptc_rule(rule, self._v6)
            data.pop("counters", None)
            found.append(json.dumps(data, sort_keys=True))
        return found

    def drop_ours(self, table: str, caller: str, name: str) -> None:
        """Remove a chain of ours and the calls of it."""
        opened = self.table(table)
        builtin = self._iptc.Chain(opened, caller)
        for rule in self._calls(builtin, name):
            builtin.delete_rule(rule)
        if opened.is_chain(name):
            self._iptc.Chain(opened, name).flush()
            opened.delete_chain(name)

    @staticmethod
    def _calls(builtin: Any, name: str) -> list[Any]:
        return [rule for rule in builtin.rules if rule.target and rule.target.name == name]

    def add(self, chain: dict[str, Any]) -> None:
        """Add a chain of ours, and its call at the top."""
        opened = self.table(chain["table"])
        own = opened.create_chain(chain["name"])
        for data in chain["rules"]:
            own.append_rule(self.rule(data))
        self._iptc.Chain(opened, chain["caller"]).insert_rule(self.rule(chain["call"]))

    def replace(self, job: dict[str, Any]) -> dict[str, Any]:
        """Replace our chains in the tables by the wanted ones."""
        for name, wanted in job["steps"]:
            for table, caller, chain in job["owned"]:
                if table == name:
                    self.drop_ours(table, caller, chain)
            for chain in job["chains"]:
                if wanted and chain["table"] == name:
                    self.add(chain)
            self.table(name).commit()
            self.table(name).refresh()
        return {}

    def examine(self, job: dict[str, Any]) -> dict[str, Any]:
        """Our existing chains and the wanted ones, by "table chain": the calls, then the rules. Commits nothing."""
        live: dict[str, list[str]] = {}
        for table, caller, chain in job["owned"]:
            if table not in job["tables"]:
                continue
            calls = self.decoded(self._calls(self._iptc.Chain(self.table(table), caller), chain))
            if self.table(table).is_chain(chain) or calls:
                rules = self.decoded(self._rules(table, chain)) if self.table(table).is_chain(chain) else []
                live[f"{table} {chain}"] = [*calls, *rules]
        return {"live": live, "meant": {f"{c['table']} {c['name']}": self._meant(c) for c in job["chains"]}}

    def count(self, job: dict[str, Any]) -> dict[str, Any]:
        """Packets and octets of each rule of our existing chains, by "table chain"."""
        found = {
            f"{table} {chain}": [list(rule.get_counters()) for rule in self._rules(table, chain)]
            for table, _, chain in job["owned"]
            if table in job["tables"] and self.table(table).is_chain(chain)
        }
        return {"counts": found}

    def list_chains(self, job: dict[str, Any]) -> dict[str, Any]:
        """The chains in these tables that are not built in, as [table, chain]."""
        found = ((name, chain) for name in job["tables"] for chain in self.table(name).chains)
        return {"chains": [[name, chain.name] for name, chain in found if not chain.is_builtin()]}

    def _meant(self, chain: dict[str, Any]) -> list[str]:
        """The wanted rules as the library reads them back, from a chain that is never committed."""
        opened = self.table(chain["table"])
        scratch = opened.create_chain(_SCRATCH)
        for data in chain["rules"]:
            scratch.append_rule(self.rule(data))
        rules = self.decoded(self._rules(chain["table"], _SCRATCH))
        # A call needs an existing chain, and ours may not exist: use the scratch chain as its target.
        scratch.flush()
        call = {**chain["call"], "target": [_SCRATCH, []]}
        caller = self._iptc.Chain(opened, chain["caller"])
        caller.insert_rule(self.rule(call))
        decoded = json.loads(self.decoded(self._calls(caller, _SCRATCH))[0]) | {"target": chain["name"]}
        caller.delete_rule(self.rule(call))
        opened.delete_chain(_SCRATCH)
        return [json.dumps(decoded, sort_keys=True), *rules]


@contextmanager
def xtables_lock() -> Iterator[None]:
    """Hold the lock of iptables -w. Raises TimeoutError."""
    path = os.environ.get("XTABLES_LOCKFILE", XTABLES_LOCK)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}:
            raise
        # If we cannot create the file, iptables cannot either: no other program holds the lock.
        yield
        return
    try:
        deadline = time.monotonic() + LOCK_WAIT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another program holds {XTABLES_LOCK}") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def perform(job: dict[str, Any]) -> int:
    """Do one job: the answer goes to standard output, the reason of a failure to standard error."""
    try:
        # The kernel gives a table as it is at one moment: a process that only reads counters needs no lock.
        with nullcontext() if job["action"] == "count" else xtables_lock():
            worker = Worker(job["version"])
            actions = {
                "replace": worker.replace,
                "examine": worker.examine,
                "count": worker.count,
                "list": worker.list_chains,
            }
            json.dump(actions[job["action"]](job), sys.stdout)
    except Exception as error:  # noqa: BLE001 - every error of the library is reported as the reason
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


class Child:
    """A process of its own for one job, forked after the import, which takes longer than the job."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._answer, self._reason = os.memfd_create("answer"), os.memfd_create("reason")
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() == parent:
                    os.dup2(self._answer, 1)
                    os.dup2(self._reason, 2)
                    status = perform(job)
                    sys.stdout.flush()
                    sys.stderr.flush()
            finally:
                os._exit(status)

    def end(self) -> list[Any]:
        """Wait for it: exit status (below 0: that signal), standard output, standard error."""
        _, status = os.waitpid(self._pid, 0)
        said = []
        for descriptor in (self._answer, self._reason):
            os.lseek(descriptor, 0, os.SEEK_SET)
            with os.fdopen(descriptor, encoding="utf-8", errors="backslashreplace") as file:
                said.append(file.read())
        return [os.waitstatus_to_exitcode(status), *said]


def main() -> int:
    """Do the jobs of standard input."""
    jobs = json.load(sys.stdin)
    try:
        import_iptc()
    except Exception as error:  # noqa: BLE001 - as in `perform`
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    children = [Child(job) for job in jobs]
    json.dump([child.end() for child in children], sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
