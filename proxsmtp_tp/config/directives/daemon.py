"""The directives of the daemon: its pid file, what it logs, its workers, its name."""

from __future__ import annotations

from proxsmtp_tp.config import values
from proxsmtp_tp.config.directives.directive import Directive
from proxsmtp_tp.config.settings import WORKERS_MAX, LogAddresses, LogFormat

DAEMON: tuple[Directive, ...] = (
    Directive(
        "PidFile",
        "pid_file",
        values.PATH,
        "The file that holds the daemon's process id while it runs. It overrides -p of the command line.",
    ),
    Directive(
        "LogLevel",
        "log_level",
        values.integer(0, 4),
        "How much is logged: 0 errors, 1 warnings, 2 notices, 3 also what becomes of each message, 4 also the whole"
        " dialogue. A reload changes it. -d of the command line overrides it, and `proxsmtp-tp log-level` both.",
        since="2.1",
    ),
    Directive(
        "LogFormat",
        "log_format",
        values.choice(LogFormat),
        "The form of log lines. proxsmtpd: that of 1.10, followed by more fields. postfix: as Postfix writes them, for"
        " pflogsumm and other programs. json: one JSON object a line. See docs/logging.md.",
        since="2.1",
    ),
    Directive(
        "LogAddresses",
        "log_addresses",
        values.choice(LogAddresses),
        "How mail addresses are shown in log lines and events. full: as they are. domain: without the local part."
        " keyed: a pseudonym in place of the local part, made with a key that changes each day; `proxsmtp-tp"
        " events --address` finds the pseudonym of an address for eight days. none: not at all. In the last three"
        " forms addresses are also replaced in what servers and filters say, and a trace of the dialogue shows only"
        " verbs and codes.",
        since="2.1",
    ),
    Directive(
        "EventLog",
        "event_log",
        values.EVENT_LOG,
        "Where an event for each transaction goes, as one JSON object: off, a file (which may be rotated by moving"
        " it), unix: and the path of a socket, or journal (the systemd journal, as fields). Mail never waits for it:"
        " events that are not taken in time are lost, and `proxsmtp-tp status` counts them. See docs/logging.md.",
        since="2.1",
    ),
    Directive(
        "Workers",
        "workers",
        values.integer(0, WORKERS_MAX),
        "How many processes share the work. 0 means one for each core, at most 255.",
        since="2.0",
        default_text="0, one for each core",
    ),
    Directive(
        "Instance",
        "instance",
        values.INSTANCE,
        "The name of this instance. It is part of the names of its rules and of its runtime files.",
        since="2.0",
        default_text="the configuration file's name without its suffix",
    ),
)
