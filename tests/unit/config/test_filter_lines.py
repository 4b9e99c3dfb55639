"""The directive Filter: its lines, all their problems at once, and the checks of the whole chain."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from proxsmtp_tp.config.addresses import InetAddress, UnixAddress
from proxsmtp_tp.config.filter_lines import (
    EditKind,
    Failure,
    FilterLine,
    MemberType,
    Mode,
    Oversize,
    parse_filter,
    show_filter,
)
from proxsmtp_tp.config.reader import ConfigError, parse_config

LINES: list[tuple[str, dict[str, Any]]] = [
    ("a pipe cat", {"type": MemberType.PIPE, "command": "cat"}),
    ("a PIPE sed -e s/a=b/c/ | cat  timeout=60", {"command": "sed -e s/a=b/c/ | cat", "timeout": 60.0}),
    ('a pipe "x=1 y=2" max=3', {"command": "x=1 y=2", "max": 3}),
    (r'a file "sh -c \"x\" a=b"', {"type": MemberType.FILE, "command": 'sh -c "x" a=b'}),
    ('a pipe "/my prog" arg', {"command": '"/my prog" arg'}),
    ("a worker /x min=2 memory=1M", {"type": MemberType.WORKER, "min": 2, "memory": 1 << 20}),
    ("a milter unix:/run/x", {"addresses": (UnixAddress("/run/x"),)}),
    ("a milter local:/run/x", {"addresses": (UnixAddress("/run/x"),)}),
    ("a milter inet:8891@localhost", {"addresses": (InetAddress("localhost", 8891),)}),
    ("a milter inet6:8891@[::1]", {"addresses": (InetAddress("::1", 8891),)}),
    ("a milter 8891", {"addresses": (InetAddress("127.0.0.1", 8891),)}),
    (
        "a clamd /run/c,[2001:db8::1]:99,192.0.2.1",
        {
            "addresses": (UnixAddress("/run/c"), InetAddress("2001:db8::1", 99), InetAddress("192.0.2.1", 3310)),
            "limit": 100 << 20,
        },
    ),
    ("a clamd /run/c limit=25M oversize=pass", {"limit": 25 << 20, "oversize": Oversize.PASS}),
    ("a spamd host reject=8.5 user=bob", {"addresses": (InetAddress("host", 783),), "reject": 8.5, "user": "bob"}),
    ("a rspamd http://10.0.0.9:11333/ settings-id=out tag=x", {"settings_id": "out", "tag": "x"}),
    ("a milter /x mode=Shadow failure=pass", {"mode": Mode.SHADOW, "failure": Failure.PASS}),
    (
        "a milter /x skip=authenticated,192.0.2.0/24,2001:db8::1",
        {"skip": (ip_network("192.0.2.0/24"), ip_network("2001:db8::1")), "skip_authenticated": True},
    ),
    ("a milter /x edits=none", {"edits": frozenset()}),
    ("a milter /x edits=body,headers", {"edits": frozenset({EditKind.BODY, EditKind.HEADERS})}),
    ("a milter /x connect=0.5 wait=3600", {"connect": 0.5, "wait": 3600.0}),
]


@pytest.mark.parametrize(("text", "values"), LINES)
def test_lines(text: str, values: dict[str, Any]) -> None:
    (line,) = parse_filter(text)
    assert {name: getattr(line, name) for name in values} == values
    assert parse_filter(show_filter(line)) == (line,)


PROBLEMS = [
    ("", ["is no filter"]),
    ("a pipe", ["is no filter"]),
    ("a what x", ["'what' is not one of pipe, file, smtp, milter"]),
    ("a_b pipe cat timeout=x", ["'a_b' is no name", "timeout: 'x' is no time"]),
    ("a milter host failure=maybe max=0", ["has no port", "failure: 'maybe'", "max: '0'"]),
    ("a milter /x tiemout=3", ["tiemout: type milter has no such setting; it has connect, edits"]),
    ("a milter /x reject=3", ["reject: type milter has no such setting"]),
    ("a pipe cat tiemout=3", ["tiemout: type pipe has no such setting (a part of the command: write the command in"]),
    ("a pipe timeout=3", ["there is no command"]),
    ("a milter /x /y", ["separate them with commas"]),
    ("a milter inet:x@y", ["'x' is no port"]),
    ("a milter 2001:db8::1", ["in brackets"]),
    ("a milter /x skip=everybody", ["'everybody' is neither authenticated nor a network"]),
    ("a milter /x edits=all", ["'all' is not one of headers"]),
    ("a milter /x limit=1T", ["'1T' is no size"]),
    ("a milter /x timeout=0", ["'0' is no time"]),
    ("a spamd /x reject=high", ["'high' is no score"]),
]


@pytest.mark.parametrize(("text", "problems"), PROBLEMS)
def test_problems(text: str, problems: list[str]) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  (the text is compared below)
        parse_filter(text)
    for problem in problems:
        assert problem in str(raised.value)


def read(*lines: str) -> tuple[FilterLine, ...]:
    return parse_config("\n".join(["OutAddress: 192.0.2.1", *lines]).encode(), "x.conf").settings.filter


def wrong(*lines: str) -> str:
    with pytest.raises(ConfigError) as raised:
        read(*lines)
    assert raised.value.exit_code == 2
    return str(raised.value)


def test_lines_add_up_in_order() -> None:
    assert [line.name for line in read("Filter: b pipe cat", "filter: a pipe cat # no comment")] == ["b", "a"]


def test_problems_of_the_chain() -> None:
    said = wrong("Filter: a pipe cat x=1", "Filter: b what x", "FilterCommand: cat", "FilterTimeout: x")
    assert [text in said for text in (":2: Filter: x: type pipe", ":3: Filter: 'what'", ":5: FilterTimeout")] == [
        True
    ] * 3
    assert "not together with FilterCommand" in wrong("Filter: a pipe cat", "FilterCommand: cat")
    assert "FilterType reject" in wrong("Filter: a pipe cat", "FilterType: reject")
    assert "two filters have the name a" in wrong("Filter: a pipe cat", "Filter: A pipe cat 1")
    assert "560 s together" in wrong("Filter: a pipe cat timeout=270", "Filter: b pipe cat timeout=270")
    assert "33 filters, more than 32" in wrong(
        *(f"Filter: a{number} pipe cat timeout=1 wait=1" for number in range(33))
    )
    assert len(read("Filter: a pipe cat timeout=270", "Filter: b pipe cat timeout=270 mode=shadow")) == 2
