"""The directives of filters: FilterCommand and the chain, quarantine, and what is done while a filter works."""

from __future__ import annotations

from proxsmtp_tp.config import values
from proxsmtp_tp.config.directives.directive import Directive
from proxsmtp_tp.config.parsing import INTEGER_MAX
from proxsmtp_tp.config.settings import FilterDefault, FilterMode, FilterType

# /proc/sys/kernel/pid_max is at most 2^22: no system runs more processes.
_PROCESSES_MAX = 1 << 22

FILTERS: tuple[Directive, ...] = (
    Directive(
        "Filter",
        "filter",
        values.FILTER,
        "A filter that judges mail. Several lines make a chain, in their order: each filter sees the message and its"
        " envelope as the filters before it have changed them. Not together with FilterCommand. The section THE"
        " FILTER DIRECTIVE of proxsmtpd.conf(5) has the types and settings; docs/filters.md explains them.",
        since="2.1",
        default_text="no chain",
    ),
    Directive(
        "FilterCommand",
        "filter_command",
        values.TEXT,
        "The command that judges mail. /bin/sh -c runs it; a command without shell syntax is executed directly"
        " (proxsmtpd(8), FILTER SCRIPTS; check-config says which it is). With FilterType smtp: the address of the"
        " scanner.",
        default_text="no filtering",
    ),
    Directive(
        "FilterTimeout",
        "filter_timeout",
        values.SECONDS,
        "How long the filter may take after it has read the whole message. The filter starts when the message is"
        " complete. While it still reads, each piece that it reads starts the time again. After this time the filter"
        " is ended with all that it started, and the client is told to try again later.",
    ),
    Directive(
        "FilterReject",
        "filter_reject",
        values.REPLY,
        "The reply of FilterType reject: a code from 400 to 599 and a text. If there is only a text, 550 Content"
        " Rejected is put before it.",
    ),
    Directive(
        "FilterType",
        "filter_type",
        values.choice(FilterType),
        "pipe: the filter reads the message from standard input and writes it to standard output. file: the message is"
        " in the file that EMAIL names. reject: all messages are refused with FilterReject. smtp: the message is sent"
        " to a scanner that speaks SMTP.",
    ),
    Directive(
        "FilterDefault",
        "filter_default",
        values.choice(FilterDefault),
        "What the client gets if FilterCommand exits with a status other than 0 and the last line of its standard error"
        " has no SMTP code, as after an exception in a script or if the script is missing. reject: 550, and the mail"
        " bounces. defer: 451, and the client tries again later. Write defer, unless your scripts refuse mail without a"
        " code.",
        since="2.1",
        default_text="reject, as 1.10",
    ),
    Directive(
        "FilterMode",
        "filter_mode",
        values.choice(FilterMode),
        "enforce: the verdict of the filter holds. monitor: the filter judges each message, the log says what would"
        " have happened (status=MONITORED), and the message passes as it came: for the first weeks of a new filter. A"
        " message that cannot be stored is refused in both modes. SpoolLimit counts a monitored message twice.",
        since="2.1",
    ),
    Directive(
        "FilterProcesses",
        "filter_processes",
        values.integer(1, _PROCESSES_MAX),
        "How many filters may run at once, in all workers together. Further messages wait. When a filter ends, the"
        " client (an IPv4 address or an IPv6 /64) with the fewest running filters is next; clients with equally few"
        " take turns. The default is what 1.10 could run with its default MaxConnections.",
        since="2.0",
    ),
    Directive(
        "FilterWait",
        "filter_wait",
        values.SECONDS,
        "How long a message may wait for one of FilterProcesses; then the client is told to try again later. Filter"
        " lines have wait= instead. If messages have been waiting for 5 seconds without a break, none waits longer"
        " than 2 seconds, and the newest message of a client is next: the older ones would be judged too late.",
        since="2.1",
        default_text="as FilterTimeout",
    ),
    Directive(
        "AnswerWithin",
        "answer_within",
        values.SECONDS_OR_OFF,
        "How long a client may wait for the reply to a message that filters judge. After this time the message is not"
        " sent to the server any more, and the client is told to try again later (451). Clients wait 10 minutes (RFC"
        " 5321), Postfix with smtpd_proxy_filter 100 seconds. A client that stops waiting sends the message again: if"
        " the server had got it by then, it would be delivered twice.",
        since="2.1",
        default_text="540, or FilterTimeout if that is longer",
    ),
    Directive(
        "Hostname",
        "hostname",
        values.HOSTNAME,
        "The name of this gateway that filters get: a milter as j and {daemon_name}, rspamd as MTA-Name, spamd in a"
        " Received field.",
        since="2.1",
        default_text="the name of the host",
    ),
    Directive(
        "MilterMacro",
        "milter_macro",
        values.MILTER_MACRO,
        "A macro for milters: an additional one, or another value for one that they get anyway. Several lines add up;"
        " if two have the same name, the last one counts. In the value %i is the client's address, %l the address"
        " that it connected to, %s the server's address, %% a percent sign. Macros about the sender and the"
        " recipients (mail_addr, rcpt_host and others) cannot be set.",
        since="2.1",
    ),
    Directive(
        "QuarantineDirectory",
        "quarantine_directory",
        values.PATH,
        "The directory for messages that a filter of the chain (Filter) quarantines. Each is kept as two files: the"
        " message, and JSON with its envelope. proxsmtp-tp quarantine lists, shows, releases and deletes them."
        " Without this directive such messages are refused.",
        since="2.1",
        default_text="none",
    ),
    Directive(
        "QuarantineReply",
        "quarantine_reply",
        values.QUARANTINE_REPLY,
        "The reply to a message that is quarantined: a code from 200 to 299, or from 500 to 599, and a text.",
        since="2.1",
    ),
    Directive(
        "QuarantineMax",
        "quarantine_max",
        values.integer(1, INTEGER_MAX),
        "How many octets the files in QuarantineDirectory may have. When it is full, clients are told to try again"
        " later (452).",
        since="2.1",
    ),
    Directive(
        "QuarantineDays",
        "quarantine_days",
        values.integer(1, 3650),
        "How many days a message is kept in QuarantineDirectory. Older ones are removed when the next message is kept.",
        since="2.1",
    ),
    Directive(
        "KeepRefused",
        "keep_refused",
        values.FILTER_NAMES,
        "Names of filters: a copy of each message that one of these filters rejects is kept in QuarantineDirectory,"
        " so that you can find mail that was refused by mistake.",
        since="2.1",
        default_text="none",
    ),
    Directive(
        "Header",
        "header",
        values.TEXT,
        "A header to add to messages that pass: %i client, %l local address, %d date, %% percent; \\r, \\n and \\t.",
    ),
    Directive(
        "KeepAlives",
        "keep_alives",
        values.SECONDS_OR_OFF,
        "How often the server gets a NOOP while the message arrives slowly or the filter works, so that it does not"
        " disconnect. Servers count such commands, so at most one a minute and eight in a session are sent. With 240, a"
        " server whose limit is five minutes stays connected for more than half an hour.",
    ),
)
