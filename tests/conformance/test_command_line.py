"""The command line and the configuration file: what starts, what does not, with which exit code and which words.

Each `Start` is one start of 1.10 and one of ours. A daemon that runs is known by its pid file, and is ended by TERM.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.harness.daemon import ENVIRONMENT, POLL, START_LIMIT, STOP_LIMIT, free_port, program
from tests.conformance.harness.parallel import chosen
from tests.conformance.harness.script import Side

RUNS = -1
"""In place of an exit code: the daemon runs until it is told to stop, and ends with 0."""


@dataclass(frozen=True)
class Start:
    """`lines` stand below Listen and OutAddress; the configuration is given with -f unless `arguments` name it."""

    name: str
    lines: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ("-d", "1")
    code: int = RUNS
    says: str = ""
    ours_code: int | None = None
    ours_says: str | None = None
    bare: bool = False
    differs: str = ""

    def expected(self, side: Side) -> tuple[int, str]:
        """Exit code, and a pattern to be found in what it says."""
        if side is Side.ORIGINAL:
            return self.code, self.says
        code = self.code if self.ours_code is None else self.ours_code
        return code, self.says if self.ours_says is None else self.ours_says


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    errors: str


USAGE = r"usage: proxsmtpd \[-d debuglevel\] \[-f configfile\] \[-p pidfile\]\n       proxsmtpd -v\n\Z"


def refused(name: str, line: str, says: str) -> Start:
    """A line that both refuse. 1.10 names the setting; ours the line of the file, too."""
    setting = re.escape(line.partition(":")[0].strip())
    return Start(name, (line,), code=2, says=says, ours_says=rf"conf:3: {setting}")


BOOLEANS = ("0", "no", "false", "f", "off", "1", "yes", "true", "t", "on", "NO", "False", "T", "ON")

STARTS = (
    # proxsmtpd(8), OPTIONS
    Start(
        "option-v",
        arguments=("-v",),
        code=0,
        says=r"\Aproxsmtpd \(version [0-9.]+\)\n +\(config: /etc/proxsmtpd.conf\)\n\Z",
    ),
    Start("option-unknown", arguments=("-x",), code=2, says=r"invalid option -- 'x'\n" + USAGE),
    Start("option-help", arguments=("--help",), code=2, says=USAGE),
    Start(
        "option-without-value",
        arguments=("-d",),
        bare=True,
        code=2,
        says=r"option requires an argument -- 'd'\n" + USAGE,
    ),
    Start("argument-left-over", arguments=("-d", "1", "more"), code=2, says=r"\A" + USAGE),
    Start("level-0", arguments=("-d", "0"), says=r"\A\Z"),
    Start("level-1", arguments=("-d", "1"), says="running as root is NOT recommended|\\A\\Z"),
    Start("level-4", arguments=("-d", "4"), says="accepting connections"),
    Start(
        "level-5",
        arguments=("-d", "5"),
        code=2,
        says=r"\Aproxsmtpd: invalid debug log level \(must be between 1 and 4\)\n",
    ),
    Start("level-word", arguments=("-d", "x"), code=1, says=r"\Aproxsmtpd: invalid debug log level\n"),
    Start(
        "level-negative",
        arguments=("-d", "-1"),
        ours_code=2,
        ours_says="invalid debug log level",
        differs="1.10 runs, and hides errors; -4 makes a daemon of it",
    ),
    Start("level-last-one-counts", arguments=("-d", "9", "-d", "1")),
    Start("level-huge", arguments=("-d", "99999999999"), code=2, says="invalid debug log level"),
    Start("level-empty", arguments=("-d", ""), says=r"\A\Z"),
    Start("level-blank", arguments=("-d", " "), code=1, says="invalid debug log level"),
    Start("level-signed", arguments=("-d", " +01")),
    Start("level-of-a-command-that-is-wrong", arguments=("-d", "9", "more"), code=2, says=r"\A" + USAGE),
    Start("option-v-before-the-level", arguments=("-v", "-d", "x"), code=0, says="version"),
    Start("option-v-behind-the-level", arguments=("-d", "9", "-v"), code=0, says="version", bare=True),
    Start("option-f-empty", arguments=("-d", "1", "-f", ""), code=2, says="configuration file not found", bare=True),
    Start(
        "file-below-a-file",
        arguments=("-d", "1", "-f", "conf/x"),
        code=2,
        says="configuration file not found",
        bare=True,
    ),
    Start("option-f-last-one-counts", arguments=("-d", "1", "-f", "/nonexistent")),
    Start(
        "file-missing",
        arguments=("-d", "1", "-f", "/nonexistent"),
        code=2,
        says="configuration file not found",
        bare=True,
    ),
    Start("file-is-a-directory", arguments=("-d", "1", "-f", "/"), code=1, says="proxsmtpd: ", bare=True),
    # proxsmtpd.conf(5), DESCRIPTION
    Start("file-empty", code=2, says="OutAddress", bare=True),
    Start("file-of-comments", ("# OutAddress: 25",), code=2, says="OutAddress", bare=True),
    Start("file-in-latin-1", ("Header: X-Gr\udcfc\udcdfe: yes",)),
    Start(
        "file-with-a-mark",
        ("\ufeffListen: 127.0.0.1:{port}", "OutAddress: 25"),
        bare=True,
        code=2,
        says="invalid config line",
        ours_code=RUNS,
        ours_says="",
        differs="1.10 takes the mark of UTF-8 that Windows' editors write for a part of the first name",
    ),
    Start(
        "file-with-a-nul",
        ("TimeOut: 5\0", "Bogus: x"),
        ours_code=2,
        ours_says=r"conf:3: the line contains a NUL byte",
        differs="1.10 reads up to the first NUL, and ignores the rest of the file",
    ),
    Start(
        "file-far-too-large",
        ("# " + "x" * 2_000_000,),
        ours_code=2,
        ours_says="the file is larger than",
        differs="1.10 reads whatever it is given into memory",
    ),
    refused("value-with-a-comment-behind", "TimeOut: 5 # five", "invalid setting: TimeOut"),
    refused("name-with-a-blank", "Time Out: 5", "invalid config line: Time Out"),
    Start("name-empty", (": 5",), code=2, says="invalid config line", ours_says="conf:3: "),
    Start(
        "value-with-a-control-character",
        ("FilterCommand: cat\x01",),
        ours_code=2,
        ours_says="conf:3: FilterCommand: .*control character",
        differs="1.10 passes it on; it is a slip of an editor",
    ),
    Start("comments-and-blank-lines", ("# comment", "   # indented", "", "  \t ", "#")),
    Start("white-space", ("   TimeOut  :   5  ", "\tKeepAlives\t:\t5\t", "MaxConnections:5")),
    Start("crlf-line-ends", ("TimeOut: 5\r",)),
    Start("names-case-insensitive", ("TIMEOUT: 5", "filtercommand: cat", "xClient: on")),
    Start("value-with-colon-and-hash", ("Header: X-Filter: a # b",), ("-d", "4")),
    refused("name-unknown", "Bogus: x", "invalid config line: Bogus"),
    Start("line-without-colon", ("TimeOut 5",), code=2, says="invalid config line: TimeOut 5", ours_says="conf:3: "),
    refused("name-of-the-source-only", "DebugFiles: x", "invalid config line: DebugFiles"),
    Start("setting-twice", ("TimeOut: 5", "TimeOut: 6"), ("-d", "1"), ours_says="given twice"),
    Start(
        "several-problems",
        ("TimeOut: x", "Bogus: y"),
        code=2,
        says=r"\Aproxsmtpd: invalid setting: TimeOut\n\Z",
        ours_says=r"conf:3: TimeOut.*\n.*conf:4: Bogus",
        differs="1.10 tells the first only; ours all, with their lines",
    ),
    # proxsmtpd.conf(5), SETTINGS
    Start("booleans", tuple(f"XClient: {word}" for word in BOOLEANS)),
    refused("boolean-bad", "XClient: maybe", "invalid value for XClient"),
    refused("boolean-empty", "XClient:", "invalid value for XClient"),
    Start("filter-command-empty", ("FilterCommand:",)),
    Start("filter-timeout", ("FilterTimeout: 60",)),
    refused("filter-timeout-zero", "FilterTimeout: 0", "invalid setting: FilterTimeout"),
    refused("filter-timeout-word", "FilterTimeout: soon", "invalid setting: FilterTimeout"),
    Start(
        "seconds-huge",
        tuple(f"{name}: {value}" for name in ("FilterTimeout", "TimeOut") for value in (2**31, 2**32, 10**11, 10**20)),
    ),
    Start("seconds-signed", ("FilterTimeout: +60", "TimeOut: 0060", "KeepAlives: +0", "KeepAlives:")),
    refused("filter-timeout-negative", "FilterTimeout: -1", "invalid setting: FilterTimeout"),
    refused("time-out-negative", "TimeOut: -1", "invalid setting: TimeOut"),
    refused("time-out-with-unit", "TimeOut: 5s", "invalid setting: TimeOut"),
    Start(
        "filter-reject-forms", tuple(f"FilterReject: {text}" for text in ("", "no", "550", "450 4.7.1 later", "5500"))
    ),
    Start(
        "filter-reject-in-utf-8",
        ("FilterReject: 550\tno", "FilterReject: 550 keine Mail f\xfcr Sie"),
        ours_says="FilterReject: .*ASCII",
    ),
    Start(
        "filter-reject-that-accepts",
        ("FilterReject: 250 Ok",),
        ours_code=2,
        ours_says="conf:3: FilterReject: .*does not refuse",
        differs="1.10 says 250 to DATA; a client that gets no 354 tries again for days",
    ),
    Start("filter-types", ("FilterType: pipe", "FilterType: file", "FilterType: reject", "FilterType: PIPE")),
    refused("filter-type-bad", "FilterType: magic", "invalid value for FilterType"),
    Start("header-empty", ("Header:",)),
    refused("keepalives-negative", "KeepAlives: -1", "invalid setting: KeepAlives"),
    refused("keepalives-word", "KeepAlives: often", "invalid setting: KeepAlives"),
    Start("keepalives-off", ("KeepAlives: 0",)),
    Start("listen-elsewhere", ("Listen: 192.0.2.1:25",), code=1, says="192.0.2.1:25: Cannot assign requested address"),
    refused("listen-bad-port", "Listen: 127.0.0.1:70000", "invalid Listen socket name or ip: 127.0.0.1:70000"),
    Start(
        "listen-at-a-file",
        ("Listen: ./conf",),
        ours_code=1,
        ours_says=r"Listen \./conf: Address already in use",
        differs="1.10 removes whatever has the name of its socket, here its own configuration file",
    ),
    Start(
        "loopback-is-warned-of",
        ("Listen: {port}", "OutAddress: 25"),
        ours_says="Clients",
        differs="1.10 does not warn that anybody who can connect has it connect back",
    ),
    Start("max-connections", ("MaxConnections: 2", "MaxConnections: 10239")),
    refused("max-connections-zero", "MaxConnections: 0", "invalid setting: MaxConnections"),
    refused("max-connections-word", "MaxConnections: 5x", "invalid setting: MaxConnections"),
    Start(
        "max-connections-one",
        ("MaxConnections: 1",),
        code=2,
        says="must be between 1 and 10240",
        ours_code=RUNS,
        ours_says="",
        differs="1.10 says that 1 is allowed, and refuses it",
    ),
    Start(
        "max-connections-many",
        ("MaxConnections: 20000",),
        code=2,
        says="must be between 1 and 10240",
        ours_code=RUNS,
        ours_says="",
        differs="1.10 has a thread for each; ours can hold more",
    ),
    Start("out-address-missing", ("Listen: {port}",), code=2, says="OutAddress", bare=True),
    Start(
        "out-address-forms",
        ("OutAddress: 25", "OutAddress: 127.0.0.1", "OutAddress: 127.0.0.1:25", "OutAddress: /run/x"),
    ),
    Start("out-address-name", ("OutAddress: localhost", "OutAddress: localhost:25")),
    Start(
        "address-with-blanks", ("OutAddress: 127.0.0.1: 25", "OutAddress: 127.0.0.1:+25", "Listen: 127.0.0.1: {port}")
    ),
    refused("out-address-empty", "OutAddress:", "invalid OutAddress socket name"),
    refused("out-address-port-missing", "OutAddress: 127.0.0.1:", "invalid OutAddress socket name"),
    refused("out-address-service", "OutAddress: localhost:smtp", "invalid OutAddress socket name"),
    refused("out-address-short", "OutAddress: 127.1:25", "invalid OutAddress socket name"),
    refused("boolean-y", "XClient: y", "invalid value for XClient"),
    refused("boolean-two", "XClient: 2", "invalid value for XClient"),
    refused("out-address-bad-port", "OutAddress: 127.0.0.1:65536", "invalid OutAddress socket name or ip"),
    refused("out-address-port-zero", "OutAddress: 0", "invalid OutAddress socket name or ip: 0"),
    Start(
        "out-address-unknown-name",
        ("OutAddress: no-such-host.invalid:25",),
        code=2,
        says="invalid OutAddress socket name",
        ours_code=RUNS,
        ours_says="",
        differs="1.10 does not start while DNS is down; ours looks names up for each connection, and says 421 then",
    ),
    Start(
        "addresses-ipv6",
        ("OutAddress: [::1]:25",),
        code=2,
        says="invalid OutAddress socket name",
        ours_code=RUNS,
        ours_says="",
        differs="IPv6 is disabled in 1.10",
    ),
    Start("skip", ("Skip: authenticated", "Skip: AUTHENTICATED")),
    refused("skip-bad", "Skip: everybody", "invalid value for Skip"),
    refused("temp-directory-empty", "TempDirectory:", "invalid setting: TempDirectory"),
    refused("time-out-zero", "TimeOut: 0", "invalid setting: TimeOut"),
    refused("time-out-empty", "TimeOut:", "invalid setting: TimeOut"),
    Start(
        "transparent-proxy",
        ("TransparentProxy: off", "TransparentProxy: on", "TransparentProxy: Client"),
        says="OutAddress",
    ),
    Start("transparent-proxy-alone", ("Listen: 127.0.0.1:{port}", "TransparentProxy: client"), ("-d", "4"), bare=True),
    refused("transparent-proxy-bad", "TransparentProxy: maybe", "invalid value for TransparentProxy"),
    refused("user-empty", "User:", "invalid setting: User"),
    Start(
        "user-root",
        ("User: root",),
        code=1,
        says="unable to completely drop privileges",
        ours_code=RUNS,
        ours_says="running as root is NOT recommended",
        differs="1.10 ends with an error that names no error",
    ),
    Start("user-unknown", ("User: no-such-user",), code=1, says="couldn't look up user: no-such-user"),
    Start(
        "pid-file-unwritable",
        ("PidFile: /nonexistent/pid",),
        ("-d", "4"),
        says="couldn't open pid file: /nonexistent/pid",
    ),
)


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> dict[tuple[Side, str], Result]:
    """All selected starts, side by side."""
    plays = chosen(request, "test_start", "side", "start")
    with ThreadPoolExecutor(6) as pool:
        outcomes = pool.map(lambda play: perform(*play), plays)
        return {(side, start.name): outcome for (side, start), outcome in zip(plays, outcomes, strict=True)}


def perform(side: Side, start: Start) -> Result:
    """Start, wait until it runs or has ended, stop it."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as name:
        directory = Path(name)
        port = str(free_port())
        lines = start.lines if start.bare else ("Listen: 127.0.0.1:{port}", "OutAddress: 127.0.0.1:25", *start.lines)
        text = "".join(f"{line}\n".replace("{port}", port) for line in lines)
        (directory / "conf").write_text(text, "utf-8", "surrogateescape", newline="")
        pid_file = directory / "pid"
        usual = ["-p", str(pid_file), "-f", "conf"]
        arguments = ["-f", "conf", *start.arguments] if start.bare else [*start.arguments, *usual]
        with (directory / "out").open("wb") as out, (directory / "err").open("wb") as err:
            process = subprocess.Popen(
                [program(side), *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=name, env=ENVIRONMENT
            )
            code = _code_of(process, pid_file, directory / "err")
        return Result(code, (directory / "out").read_text("utf-8"), (directory / "err").read_text("utf-8"))


def _code_of(process: subprocess.Popen[bytes], pid_file: Path, err: Path) -> int:
    """RUNS, after a clean end, or the exit code of a daemon that did not come up."""
    deadline = time.monotonic() + START_LIMIT
    while process.poll() is None and time.monotonic() < deadline and not _ready(pid_file, err):
        time.sleep(POLL)
    if process.poll() is not None:
        return process.returncode
    process.terminate()
    try:
        status = process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return -9
    return RUNS if status == 0 else status


def _ready(pid_file: Path, err: Path) -> bool:
    with suppress(OSError):
        return bool(pid_file.read_text("ascii").strip())
    return "accepting connections" in err.read_text("utf-8")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("start", STARTS, ids=lambda start: start.name)
@pytest.mark.parametrize("side", Side, ids=lambda side: side.value)
def test_start(side: Side, start: Start, results: dict[tuple[Side, str], Result]) -> None:
    result = results[side, start.name]
    code, says = start.expected(side)
    text = result.out + result.errors
    assert (result.code, bool(re.search(says, text))) == (code, True), f"{result.code}:\n{text}"
