"""The iptables method: legacy xtables through python-iptables, each IP version in a process of its own.

One table of one IP version is replaced in one step. In the order of the steps, interception is never interrupted: a
guard (fail closed) is removed first and added last; the table that intercepts from now on is written before the one
that intercepted until now. If a step fails, `install.apply` restores the earlier rules.

Sources: iptables-extensions(8); `xtables_worker` for the library.
"""

from __future__ import annotations

import json
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.gateway import routing, xtables, xtables_names
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.plan import Mode, instance_of_chain, names
from proxsmtp_tp.gateway.python import module_command
from proxsmtp_tp.gateway.rule_counts import Count

if TYPE_CHECKING:
    from proxsmtp_tp.gateway.plan import Plan
    from proxsmtp_tp.gateway.xtables_values import Chain, Rule

# The kernel lists the tables that exist in this network namespace; the library would create those that do not.
_TABLE_LISTS = {4: Path("/proc/thread-self/net/ip_tables_names"), 6: Path("/proc/thread-self/net/ip6_tables_names")}
# Seconds: up to 10 for the lock at each of two jobs, then about one to commit ten thousand rules.
_TIMEOUT = 60.0
_TOOL = {4: "iptables", 6: "ip6tables"}


class IptablesFirewall:
    """See `firewall.Firewall`."""

    def requirements(self, plan: Plan) -> list[str]:
        """Checks for the library, and that the kernel accepts these rules, in an empty network namespace."""
        if find_spec("iptc") is None:
            return ["python-iptables is not installed: pip install 'proxsmtp-tp[iptables]', or use --method nftables"]
        try:
            work(_replacements(plan), scratch=True)
        except GatewayError as error:
            return [f"{error} (this kernel may lack legacy iptables: use --method nftables)"]
        return []

    def render(self, plan: Plan) -> str:
        """The rules as text."""
        return xtables.render(plan)

    def present(self, instance: str) -> bool:
        """Whether a chain of ours exists."""
        return bool(_with_our_chains(instance))

    def inventory(self) -> dict[str, list[str]]:
        """The chains with a name of ours."""
        if find_spec("iptc") is None:
            return {}
        tables = {version: there for version in routing.versions() if (there := _existing_tables(version))}
        answers = work([{"version": version, "action": "list", "tables": there} for version, there in tables.items()])
        found: dict[str, list[str]] = {}
        for version, answer in zip(tables, answers, strict=True):
            for table, chain in answer["chains"]:
                if instance := instance_of_chain(chain):
                    found.setdefault(instance, []).append(f"{_TOOL[version]} table {table} chain {chain}")
        return found

    def drift(self, plan: Plan) -> list[str] | None:
        """Compare our chains, and their calls, with what the plan means."""
        jobs = []
        for version in routing.versions():
            needed = {chain.table for chain in xtables.chains(plan, version)}
            tables = sorted(needed | set(_existing_tables(version)))
            jobs.append(_job(version, "examine", plan.options.instance, _chains(plan, version), tables=tables))
        seen = work(jobs)
        if not any(answer["live"] for answer in seen):
            return None
        return [
            line
            for job, answer in zip(jobs, seen, strict=True)
            for line in _differences(_TOOL[job["version"]], answer["meant"], answer["live"])
        ]

    def counts(self, plan: Plan) -> list[Count]:
        """The rules of our chains by their place, where a chain has as many rules as the plan has for it."""
        jobs = [
            _job(version, "count", plan.options.instance, [], tables=_existing_tables(version))
            for version in routing.versions()
        ]
        found = []
        for job, seen in zip(jobs, work(jobs), strict=True):
            for chain in xtables.chains(plan, job["version"]):
                counted = seen["counts"].get(f"{chain.table} {chain.name}", [])
                if len(counted) == len(chain.rules):
                    named = zip(xtables_names.names(chain, plan, job["version"]), counted, strict=True)
                    found += [Count(name, *both) for name, both in named if name]
        return found

    def install(self, plan: Plan) -> None:
        """Replace our chains: remove the old guard first (unless it refuses all mail), add the new one last."""
        live = _live(plan.options.instance)
        refusing = any(f"raw {plan.names.prerouting}" in chains for chains in live.values())
        work(_replacements(plan, guard_first=bool(live) and not refusing, refusing=refusing))

    def require(self) -> None:
        """Nothing to check: the kernel lists its tables, and a change reports what it lacks."""

    def remove(self, instance: str) -> None:
        """Remove our chains; the guard first."""
        work(
            [
                _job(version, "replace", instance, [], steps=[[table, False] for table in _tables(version)])
                for version in _with_our_chains(instance)
            ]
        )


def _steps(plan: Plan, version: int, *, refusing: bool) -> list[list[Any]]:
    """The tables in the order of their commits: those that intercept first, the guard last.

    If the new plan refuses all: the guard first. If the old one did (`refusing`): table raw after the tables that
    intercept, so that connections are refused until they can be intercepted.
    """
    first = ["mangle", "nat"] if plan.options.mode is Mode.TPROXY else ["nat", "mangle"]
    # Table raw is not created for a plan without rules in it.
    needed = {chain.table for chain in xtables.chains(plan, version)} | {*first, "filter", *_existing_tables(version)}
    order = ("filter", "raw", *first) if plan.refuse_all else ("raw", *first, "filter")
    if refusing and not plan.refuse_all:
        order = (*first, "raw", "filter")
    return [[table, True] for table in order if table in needed]


def _replacements(plan: Plan, *, guard_first: bool = False, refusing: bool = False) -> list[dict[str, Any]]:
    before = [["filter", False]] if guard_first and not plan.refuse_all else []
    return [
        _job(
            version,
            "replace",
            plan.options.instance,
            _chains(plan, version),
            steps=[*before, *_steps(plan, version, refusing=refusing)],
        )
        for version in routing.versions()
    ]


def _tables(version: int) -> list[str]:
    """The tables that may have chains of ours, in the order of removal: the guard first."""
    return [table for table in ("filter", "nat", "mangle", "raw") if table in _existing_tables(version)]


def _existing_tables(version: int) -> list[str]:
    try:
        names_there = _TABLE_LISTS[version].read_text(encoding="ascii").split()
    except OSError:  # a kernel without legacy xtables
        return []
    return [name for name in names_there if name in {"filter", "nat", "mangle", "raw"}]


def _with_our_chains(instance: str) -> list[int]:
    """The IP versions that have a chain of ours."""
    return list(_live(instance))


def _live(instance: str) -> dict[int, dict[str, list[str]]]:
    """Our existing chains, by IP version: the rules of each "table chain"."""
    if find_spec("iptc") is None:
        return {}
    jobs = [
        _job(version, "examine", instance, [], tables=tables)
        for version in routing.versions()
        if (tables := _existing_tables(version))
    ]
    return {job["version"]: seen["live"] for job, seen in zip(jobs, work(jobs), strict=True) if seen["live"]}


def _job(version: int, action: str, instance: str, chains: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    owned = [list(entry) for entry in xtables.every_chain(names(instance))]
    return {"version": version, "action": action, "owned": owned, "chains": chains, **more}


def _chains(plan: Plan, version: int) -> list[dict[str, Any]]:
    return [encode(chain) for chain in xtables.chains(plan, version)]


def encode(chain: Chain) -> dict[str, Any]:
    """A chain in the format of the worker's input."""
    return {
        "table": chain.table,
        "name": chain.name,
        "caller": chain.caller,
        "call": _encode_rule(chain.call),
        "rules": [_encode_rule(rule) for rule in chain.rules],
    }


def _encode_rule(rule: Rule) -> dict[str, Any]:
    return {"base": rule.base, "matches": rule.matches, "target": rule.target}


def work(jobs: list[dict[str, Any]], *, scratch: bool = False) -> list[dict[str, Any]]:
    """Do the jobs, on the host or in an empty network namespace, each in a process of its own; returns their answers.

    Raises GatewayError with the reason of the first job that failed, after all have ended.
    """
    if not jobs:
        return []
    command = [*(["unshare", "--net"] if scratch else []), *module_command("proxsmtp_tp.gateway.xtables_worker")]
    tool = _TOOL[jobs[0]["version"]]
    try:
        done = subprocess.run(
            command, input=json.dumps(jobs), capture_output=True, text=True, check=False, timeout=_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise GatewayError(f"{tool}: no end within {_TIMEOUT:.0f} s") from None
    if done.returncode:
        raise GatewayError(f"{tool}: {_last_line(done.stderr, done.returncode)}")
    answers = []
    for job, (status, answer, reason) in zip(jobs, json.loads(done.stdout), strict=True):
        if status:
            raise GatewayError(f"{_TOOL[job['version']]}: {_last_line(reason, status)}")
        answers.append(json.loads(answer))
    return answers


def _last_line(reason: str, status: int) -> str:
    return (reason.strip().splitlines() or [f"it ended with status {status}"])[-1]


def _differences(tool: str, meant: dict[str, list[str]], live: dict[str, list[str]]) -> list[str]:
    found = []
    for name in sorted(meant.keys() | live.keys()):
        wanted, there = meant.get(name), live.get(name)
        where = f"{tool} {name}"
        if wanted is None or there is None:
            found.append(f"{where}: the chain {'is missing' if there is None else 'was added'}")
        elif wanted != there:
            lines = [f"{where}: missing: {rule}" for rule in wanted if rule not in there]
            lines += [f"{where}: unexpected: {rule}" for rule in there if rule not in wanted]
            found += lines or [f"{where}: its rules are in another order, or one is there twice"]
    return found
