"""Runs nft: loads a script in one transaction, lists tables, and makes the canonical form of a table.

Guarantees: scripts go to nft's standard input and names come from a validated plan, so nothing needs to be quoted for a
shell. Two tables that mean the same have equal canonical forms (`Table`): these omit handles, the values of counters,
the order of elements and chains, and the elements that change by themselves. For a plan, nft and the kernel make the
canonical form: they load the plan's script into an empty network namespace that ends with the command.

Sources: nft(8), libnftables-json(5).
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.nft_text import EXPIRING_SETS, UNFILTERED_SETS
from proxsmtp_tp.gateway.rule_counts import Count

FAMILY = "inet"
# Listing ten thousand rules takes about two seconds on a slow machine; nft itself never waits.
_TIMEOUT = 60.0
# The script of the plan is standard input; the table's name is an argument. Nothing else varies.
_SCRATCH = 'nft -f - && nft -j list table inet "$1" && echo && nft -s list table inet "$1"'


@dataclass(frozen=True, slots=True)
class Table:
    """A table by its meaning: for each chain its head and its rules in order, for each set its type and elements."""

    chains: dict[str, tuple[str, ...]]
    """JSON of the head, then of each rule."""
    sets: dict[str, tuple[str, tuple[str, ...]]]
    """JSON of the declaration; JSON of each element, sorted."""
    other: tuple[str, ...]
    """Maps, counters and other objects of a table; ours has none."""
    text: dict[str, tuple[str, ...]]
    """The lines of each chain as nft writes them, for messages. Not compared."""

    def same_as(self, other: Table) -> bool:
        """Whether both tables mean the same."""
        return (self.chains, self.sets, self.other) == (other.chains, other.sets, other.other)


def run_nft(*arguments: str, script: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run nft. Raises GatewayError if it is not installed or does not end."""
    try:
        return subprocess.run(
            ["nft", *arguments], input=script, capture_output=True, text=True, check=False, timeout=_TIMEOUT
        )
    except FileNotFoundError:
        raise GatewayError("nft is not installed: apt-get install nftables") from None
    except subprocess.TimeoutExpired:
        raise GatewayError(f"nft {' '.join(arguments)} did not end within {_TIMEOUT:.0f} s") from None


def load(script: str) -> None:
    """Load a script: all of it or nothing. Raises GatewayError with what nft said."""
    done = run_nft("-f", "-", script=script)
    if done.returncode:
        raise GatewayError(f"nft refused the rules: {_first_line(done.stderr)}")


def table_names() -> frozenset[str]:
    """The tables of family inet."""
    done = run_nft("-j", "list", "tables", FAMILY)
    if done.returncode:
        raise GatewayError(f"nft cannot list tables: {_first_line(done.stderr)}")
    return frozenset(item["table"]["name"] for item in _items(done.stdout) if "table" in item)


def ruleset() -> list[dict[str, Any]]:
    """Everything that nft lists; nothing if it is not installed or not permitted."""
    if shutil.which("nft") is None:
        return []
    listed = run_nft("-j", "-a", "list", "ruleset")
    return [] if listed.returncode else _items(listed.stdout)


def live_table(name: str) -> Table | None:
    """Our table as it is on the host; None if there is none."""
    listed = run_nft("-j", "list", "table", FAMILY, name)
    if listed.returncode:
        if name not in table_names():
            return None
        raise GatewayError(f"nft cannot list table {name}: {_first_line(listed.stderr)}")
    return canonical(listed.stdout, run_nft("-s", "list", "table", FAMILY, name).stdout)


@lru_cache(maxsize=8)  # cached: one command needs the same table twice, before the change and for the comparison
def meant_table(name: str, script: str) -> Table:
    """Our table after the script is loaded into an empty namespace. Raises GatewayError if nft refuses it."""
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", _SCRATCH, "sh", name],
        input=script, capture_output=True, text=True, check=False, timeout=_TIMEOUT,
    )  # fmt: skip
    if done.returncode:
        raise GatewayError(f"nft refused the rules: {_first_line(done.stderr)}")
    listed, _, text = done.stdout.partition("\n\n")
    return canonical(listed, text)


def canonical(listed: str, text: str) -> Table:
    """Make a `Table` from nft's JSON listing and its text listing."""
    chains: dict[str, list[str]] = {}
    sets: dict[str, tuple[str, tuple[str, ...]]] = {}
    other: list[str] = []
    for item in _items(listed):
        ((kind, body),) = item.items()
        body.pop("handle", None)
        if kind == "chain":
            chains.setdefault(body["name"], []).insert(0, _dump(body))
        elif kind == "rule":
            chains.setdefault(body["chain"], []).append(_dump([_without_count(part) for part in body["expr"]]))
        elif kind == "set":
            elements = body.pop("elem", [])
            sets[body["name"]] = (_dump(body), _elements(body["name"], elements))
        elif kind not in {"table", "metainfo"}:
            other.append(_dump(item))
    return Table({name: tuple(rules) for name, rules in chains.items()}, sets, tuple(sorted(other)), _chain_lines(text))


def _without_count(part: Any) -> Any:
    """A counter by its meaning: that packets are counted, not how many there were."""
    return {"counter": None} if isinstance(part, dict) and "counter" in part else part


def counts(name: str) -> list[Count]:
    """The counter of each rule of our table that has a comment, the name of the rule. Raises GatewayError.

    Without the elements of sets, which may be many: 10 ms.
    """
    listed = run_nft("-j", "-t", "list", "table", FAMILY, name)
    if listed.returncode:
        raise GatewayError(f"nft cannot list table {name}: {_first_line(listed.stderr)}")
    found = []
    for item in _items(listed.stdout):
        rule = item.get("rule", {})
        counted = [part["counter"] for part in rule.get("expr", ()) if isinstance(part, dict) and part.get("counter")]
        if counted and (comment := rule.get("comment")):
            found.append(Count(comment, counted[0]["packets"], counted[0]["bytes"]))
    return found


def _elements(name: str, elements: list[Any]) -> tuple[str, ...]:
    if name in UNFILTERED_SETS:
        return ()
    if name in EXPIRING_SETS:
        # Compare only the elements without a timeout: the others change while the daemon runs.
        elements = [e for e in elements if not (isinstance(e, dict) and "timeout" in e.get("elem", {}))]
    return tuple(sorted(_dump(element) for element in elements))


def _chain_lines(text: str) -> dict[str, tuple[str, ...]]:
    lines: dict[str, tuple[str, ...]] = {}
    for block in text.split("\tchain ")[1:]:
        name, _, body = block.partition(" {\n")
        found = [line.strip() for line in body.partition("\n\t}")[0].splitlines() if line.strip()]
        # A chain that others jump to has no line of its own.
        own = [] if found and found[0].startswith("type ") else [f"chain {name}"]
        lines[name] = (*own, *found)
    return lines


def _items(listed: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(listed)["nftables"]
    return found


def _dump(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "it gave no reason")
