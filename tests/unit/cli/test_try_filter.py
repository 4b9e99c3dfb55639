"""proxsmtp-tp try-filter: in a process of its own, and in one of a running daemon."""

from __future__ import annotations

import io
import json
import os
import pwd
import re
import socket
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.cli import main as cli
from proxsmtp_tp.cli.difference import COMPARED_MAX, SHOWN_MAX, difference
from proxsmtp_tp.cli.filter_process import Place, TrialError

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., tuple[int, str, str]]

MESSAGE = b"Subject: hello\n\n.dot\nbody\n"


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """`run(command, *arguments, directives)`: the exit status, standard output and error."""

    def run_it(command: str, *arguments: str, **directives: str) -> tuple[int, str, str]:
        lines = {"OutAddress": "127.0.0.1:9", "TempDirectory": str(tmp_path), "FilterCommand": command, **directives}
        file = tmp_path / "trial.conf"
        file.write_text("".join(f"{name}: {value}\n" for name, value in lines.items() if value))
        (tmp_path / "a.eml").write_bytes(MESSAGE)
        (tmp_path / "b.eml").write_bytes(b"Subject: spam\r\n\r\nspam")
        code = cli.main(["try-filter", "-f", str(file), *(a.replace("DIR", str(tmp_path)) for a in arguments)])
        told = capfd.readouterr()
        return code, told.out, told.err

    return run_it


def one(out: str) -> dict[str, object]:
    answer = json.loads(out)
    assert isinstance(answer, dict)
    return answer


@pytest.mark.parametrize(
    ("command", "verdict", "reply"),
    [
        ("cat", "pass", None),
        ("echo 550 5.7.1 No spam >&2; exit 1", "reject", "550 5.7.1 No spam"),
        ("echo 451 4.7.1 Later >&2; exit 1", "tempfail", "451 4.7.1 Later"),
        ("echo 250 Gone >&2; exit 1", "discard", "250 Gone"),
        ("python3 /missing.py", "reject", "550 Content Rejected"),
        ("/missing", "tempfail", "451 4.3.5 Content filter is not available, try again later"),
        ("kill -KILL $$", "tempfail", "451 4.3.0 Content filter failed, try again later"),
    ],
)
@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_each_verdict(run: Run, command: str, verdict: str, reply: str | None, kind: str) -> None:
    command = "true" if (command, kind) == ("cat", "file") else command
    code, out, _ = run(command, "--json", "DIR/a.eml", FilterType=kind)
    answer = one(out)
    assert (code, answer["verdict"], answer["reply"]) == (int(verdict != "pass"), verdict, reply)
    assert answer["failed"] is (verdict == "tempfail" and "Later" not in command)


def test_how_each_command_is_run(run: Run) -> None:
    assert "note: cat: run directly, without a shell\n" in run("cat", "DIR/a.eml")[1]
    shell = "note: cat | cat: run by /bin/sh, because of the character |\n"
    assert shell in run("cat | cat", "DIR/a.eml")[1]
    _, out, _ = run(
        "", "DIR/a.eml", Filter="a pipe cat\nFilter: b pipe cat; true\nFilter: c milter /nonexistent failure=pass"
    )
    assert [line for line in out.splitlines() if line.startswith(("note: a", "note: b", "note: c"))] == [
        "note: a: run directly, without a shell",
        "note: b: run by /bin/sh, because of the character ;",
    ]


def test_a_chain(run: Run) -> None:
    chain = "a pipe sed s/hello/bye/\nFilter: b pipe echo 550 No >&2; exit 1 mode=tag\nFilter: c pipe cat"
    code, out, _ = run("", "--json", "DIR/a.eml", Filter=chain)
    answer: Any = one(out)
    assert (code, answer["verdict"]) == (0, "pass")
    assert [(each["name"], each["verdict"]) for each in answer["filters"]] == [
        ("a", "edit"),
        ("b", "tag"),
        ("c", "pass"),
    ]
    assert answer["edits"][0].startswith("a: replace the message (")
    assert "+X-Filter-b: reject=550 No" in answer["difference"]
    code, out, _ = run(
        "", "DIR/a.eml", Filter="a pipe kill -9 $$ failure=pass\nFilter: v pipe echo 550 5.7.1 No >&2; exit 1"
    )
    assert code == 1
    assert out.startswith("DIR/a.eml: reject\n".replace("DIR", out.partition("/a.eml")[0]))
    assert re.search(r"\n  v: reject after \d+\.\d", out)


def test_a_milter_gets_what_the_file_contains(run: Run) -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = f"{folder}/milter"
        listener.bind(path)
        listener.listen()
        Path(folder).chmod(0o755)
        Path(path).chmod(0o777)
        heard = bytearray()

        def serve() -> None:
            with listener.accept()[0] as connected:
                connected.recv(17, socket.MSG_WAITALL)
                connected.sendall(b"\0\0\0\x0dO\0\0\0\x06\0\0\0\0\0\x0f\xf0\x80")  # no reply to any event
                while not heard.endswith(b"\0\0\0\1E"):
                    heard.extend(connected.recv(65536) or b"\0\0\0\1E")
                connected.sendall(b"\0\0\0\1a")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        macros = {"Hostname": "gw.example", "MilterMacro": "{test} of-%i"}
        code, out, _ = run("", "--json", "--client", "192.0.2.7", "DIR/a.eml", Filter=f"m milter {path}", **macros)
        thread.join(30)
    assert (code, one(out)["verdict"]) == (0, "pass")
    assert b"j\0gw.example\0" in heard
    assert b"{test}\0of-192.0.2.7\0" in heard


@pytest.mark.parametrize(
    ("directives", "verdict", "reply"),
    [
        ({}, "reject", "550 5.7.1 The message is refused by a mail filter"),
        ({"QuarantineDirectory": "DIR"}, "quarantine", "250 2.6.0 Held for review"),
        ({"QuarantineDirectory": "DIR", "QuarantineReply": "550 5.7.1 Held"}, "reject", "550 5.7.1 Held"),
        ({"QuarantineDirectory": "DIR", "KeepRefused": "a", "Filter": "a pipe echo 550 5.7.1 No >&2; exit 1"},
         "reject", "550 5.7.1 No"),
    ],
)  # fmt: skip
def test_nothing_is_kept(run: Run, tmp_path: Path, directives: dict[str, str], verdict: str, reply: str) -> None:
    """It says what would happen."""
    place = tmp_path / "quarantine"
    place.mkdir()
    lines = {name: text.replace("DIR", str(place)) for name, text in directives.items()}
    lines = {"Filter": "a pipe kill -9 $$ failure=quarantine", **lines}
    code, out, _ = run("", "--json", "DIR/a.eml", **lines)
    answer = one(out)
    assert (code, answer["verdict"], answer["reply"]) == (1, verdict, reply)
    assert verdict != "quarantine" or str(answer["detail"]).startswith("would be kept: ")
    assert not list(place.iterdir())


def test_filter_default_and_timeout_are_those_of_the_file(run: Run) -> None:
    _, out, _ = run("exit 1", "--json", "DIR/a.eml", FilterDefault="defer")
    assert str(one(out)["reply"]).startswith("451 4.3.0")
    _, out, _ = run("echo thinking >&2; sleep 30", "--json", "DIR/a.eml", FilterTimeout="4")
    answer = one(out)
    assert "timed out" in str(answer["reply"])
    assert answer["errors"] == "thinking\n"
    assert 3.9 < float(str(answer["seconds"])) < 60


def test_the_environment_is_that_of_a_message(run: Run) -> None:
    options = ["--sender", "<>", "--recipient", "a@x.example", "--recipient", "b@x.example"]
    options += ["--client", "2001:db8::1", "--server", "192.0.2.9", "--helo", "h.example"]
    words = "$SENDER $RECIPIENTS $CLIENT $SERVER $HELO $(expr length $TRACE_ID) $TMPDIR"
    code, out, _ = run(f"cat; echo {words} >&2", *options, "--json", "DIR/a.eml")
    assert code == 0
    told = str(one(out)["errors"]).split()
    assert told[:7] == ["<>", "a@x.example", "b@x.example", "2001:db8::1", "192.0.2.9", "h.example", "13"]


def test_what_people_read(run: Run) -> None:
    code, out, _ = run("printf 'looks\\033[2J fine\\n' >&2; sed 's/body/BODY/'; echo more", "DIR/a.eml")
    assert code == 0
    assert out.replace("\n", "").isprintable()
    lines = out.splitlines()
    assert lines[0].endswith("a.eml: pass")
    assert "  looks\\x1b[2J fine" in lines
    at = lines.index("difference:")
    assert lines[at + 1 : at + 8] == [
        "@@ -1,4 +1,5 @@", " Subject: hello", " ", " .dot", "-body", "+BODY", "+more"
    ]  # fmt: skip
    assert any(line.startswith("note: not as in the daemon") for line in lines)
    assert "difference: none" in run("tr -d '\\r'", "DIR/a.eml")[1]


def test_a_table_of_several(run: Run) -> None:
    script = "cat >DIR/m; ! grep -q spam DIR/m || { echo 550 5.7.1 Spam >&2; exit 1; }; cat DIR/m"
    code, out, _ = run("x=$TMPDIR; " + script.replace("DIR", "$x"), "DIR/a.eml", "DIR/b.eml")
    assert code == 1
    rows = [line.split() for line in out.splitlines()[:3]]
    assert rows[0] == ["FILE", "VERDICT", "SECONDS", "CHANGED", "REPLY"]
    assert (rows[1][1], rows[1][3], rows[1][4:]) == ("pass", "no", ["passed"])
    assert (rows[2][1], rows[2][3], rows[2][4:]) == ("reject", "-", ["550", "5.7.1", "Spam"])
    code, out, _ = run("cat", "--json", "DIR/a.eml", "DIR/b.eml")
    assert (code, [json.loads(line)["verdict"] for line in out.splitlines()]) == (0, ["pass", "pass"])


@pytest.mark.parametrize("files", [[], ["-"]])
def test_from_standard_input(run: Run, files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(MESSAGE)))
    code, out, _ = run("grep -c body >&2; echo x", "--json", *files)
    assert (code, one(out)["errors"], one(out)["file"]) == (0, "1\n", "-")


def test_a_monitor_filter_is_reported(run: Run) -> None:
    code, out, _ = run("exit 1", "DIR/a.eml", FilterMode="monitor")
    assert code == 1
    assert "note: FilterMode monitor" in out


@pytest.mark.parametrize(
    ("arguments", "directives", "said"),
    [
        (["DIR/missing.eml"], {}, "missing.eml: No such file"),
        (["DIR/a.eml"], {"FilterType": "reject"}, "no filter is configured"),
        (["DIR/a.eml"], {"FilterCommand": ""}, "no filter is configured"),
        (["DIR/a.eml"], {"Nonsense": "x"}, "no such directive"),
    ],
)
def test_usage_and_configuration(run: Run, arguments: list[str], directives: dict[str, str], said: str) -> None:
    code, _, err = run("cat", *arguments, **directives)
    assert code == 2
    assert said in err


def may_become_another() -> bool:
    """Root, where nobody is a user (not so in a user namespace that maps only root)."""
    ranges = [map(int, line.split()) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return os.geteuid() == 0 and any(first <= 65534 < first + count for first, _, count in ranges)


def test_root_becomes_the_configured_user(run: Run) -> None:
    user = "nobody" if may_become_another() else pwd.getpwuid(os.geteuid()).pw_name
    _, out, _ = run("id -un >&2; umask >&2; pwd >&2; cat", "--json", "DIR/a.eml", User=user, TempDirectory="/tmp")
    told = str(one(out)["errors"]).split()
    assert (told[0], told[2]) == (user, "/")
    assert told[1] == "0077" or os.geteuid() != 0
    code, out, err = run("cat", "DIR/a.eml", User="no-such-user")
    assert code == 1
    assert "no-such-user: make it with" in err


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b'{"error": "no space\\u001b", "size": 0}\n', r"^no space\\x1b$"),
        (b"", "has ended$"),
        (b"x\n", "has ended: "),
    ],
)
def test_a_process_that_does_not_answer(answer: bytes, said: str) -> None:
    link: Any = io.BufferedRWPair(io.BytesIO(answer), io.BytesIO())
    with pytest.raises(TrialError, match=said):
        Place(link, {}).try_message({}, b"")


def test_the_difference_is_of_what_the_server_gets() -> None:
    assert difference(b"a\r\nb\r\n", b"a\nb") == []
    assert difference(b"", b"") == []
    assert difference(b"a\nb\nc\n", b"a\nc\n") == ["@@ -1,3 +1,2 @@", " a", "-b", " c"]
    assert difference(b"a\n", b"a\n\xff\0\n") == ["@@ -1,1 +1,2 @@", " a", "+\\xff\\x00"]


def test_a_long_change_is_cut() -> None:
    lines = b"".join(b"line %d\n" % number for number in range(4 * COMPARED_MAX))
    one_line = difference(lines, lines.replace(b"line 4000\n", b"changed\n"))
    assert one_line == [
        "@@ -3998,7 +3998,7 @@", " line 3997", " line 3998", " line 3999", "-line 4000", "+changed",
        " line 4001", " line 4002", " line 4003",
    ]  # fmt: skip
    everything = difference(lines, lines.replace(b"line", b"Line"))
    assert len(everything) <= SHOWN_MAX
    assert "too long to be compared" in everything[0]
    assert len(difference(b"x\n" * 1000, b"y\n" * 1000)) == SHOWN_MAX + 1
    assert difference(b"a\n", b"a" * 5000 + b"\n")[2].endswith("... (5000 octets)")
