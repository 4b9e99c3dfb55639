"""The table of directives: each one is described here and nowhere else.

The reader takes names and kinds from here. `Settings` holds the defaults. The man page, the Ansible tables and
`check-config` are made from these rows. A new directive is one row here and one field in `Settings`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from proxsmtp_tp.config import values
from proxsmtp_tp.config.rates import LockReply
from proxsmtp_tp.config.settings import (
    BareNewline,
    ConnectFailure,
    FilterDefault,
    FilterMode,
    FilterType,
    LogAddresses,
    LogFormat,
    RuleExisting,
    RuleFail,
    RuleForward,
    RuleMethod,
    RuleMode,
    Settings,
)

if TYPE_CHECKING:
    from proxsmtp_tp.config.values import Kind

_DEFAULTS = {field.name: field.default for field in fields(Settings)}
# A connection takes two descriptors, and the kernel gives a process at most fs.nr_open = 1048576 by default.
_CONNECTIONS_MAX = 1048576 // 2
# More workers than cores only cost memory, and a row of the shared table stores the worker in one byte.
_WORKERS_MAX = 255
# The largest number of ten digits.
_SPOOL_MAX = 9_999_999_999
# Two gigabytes: more than any server accepts.
_SIZE_MAX = (1 << 31) - 1
# /proc/sys/kernel/pid_max is at most 2^22: no system runs more processes.
_PROCESSES_MAX = 1 << 22


@dataclass(frozen=True, slots=True)
class Directive:
    """One row. `since` is the version that introduced it: "1.10" for the directives of proxsmtpd."""

    name: str
    field: str
    kind: Kind
    text: str
    since: str = "1.10"
    default_text: str = ""
    """The default in words, if the value alone does not explain it."""

    @property
    def default(self) -> object:
        """The default of the field in `Settings`."""
        return _DEFAULTS[self.field]

    @property
    def shown_default(self) -> str:
        """The default as documentation shows it."""
        if self.default_text:
            return self.default_text
        return "none" if self.default in {None, ()} else self.kind.show(self.default)


DIRECTIVES: tuple[Directive, ...] = (
    Directive(
        "Filter",
        "filter",
        values.FILTER,
        "A filter that judges mail; several lines make a chain in their order. Each one sees the message and its"
        " envelope as those before it have changed them. Not together with FilterCommand. name: letters, digits and -."
        " type: pipe or file (a command), smtp, milter, clamd, spamd, rspamd (a socket, host:port or inet:port@host;"
        " several with commas: the next one is used if one cannot be connected to), worker (a command that stays). Its"
        " settings are timeout=30 seconds for the verdict; failure=tempfail, reject, pass or quarantine: what a"
        " message gets that was not judged; max=16 messages at once in all workers, others wait for wait=10 seconds;"
        " connect=5 seconds for each address; mode=enforce, tag (a refusal becomes a header X-Filter-NAME) or shadow"
        " (judged after the reply, only logged); limit=octets (K, M or G), oversize=reject, tempfail or pass: what"
        " larger messages get; skip=authenticated and networks of clients, with commas;"
        " edits=headers,body,sender,recipients or none: what it may change; spamd: reject=score, user=name; rspamd:"
        " settings-id=, user=, tag=; worker: min=, idle=, requests=, lifetime=, memory=, start=. A command that ends"
        " with a word like a setting is written in quotes.",
        since="2.1",
        default_text="no chain",
    ),
    Directive(
        "FilterCommand",
        "filter_command",
        values.TEXT,
        "The command that judges mail, run by /bin/sh -c. With FilterType smtp: the address of the scanner.",
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
        " lines have wait= in place of it. When messages have waited without a break for 5 seconds, none waits longer"
        " than 2 seconds, and the newest of a client is next: older ones would be answered too late.",
        since="2.1",
        default_text="as FilterTimeout",
    ),
    Directive(
        "AnswerWithin",
        "answer_within",
        values.SECONDS_OR_OFF,
        "How long a client waits for the answer to a message that filters judge. After this time the server does not"
        " get the message any more, and the client is told to try again later (451). Clients wait 10 minutes (RFC"
        " 5321), Postfix with smtpd_proxy_filter 100 seconds: one that gives up sends the message again, and a message"
        " that the server has got by then is delivered twice.",
        since="2.1",
        default_text="540, or FilterTimeout if that is longer",
    ),
    Directive(
        "Hostname",
        "hostname",
        values.HOSTNAME,
        "The name of this gateway for filters: a milter gets it as j and {daemon_name}, rspamd as MTA-Name, spamd in a"
        " Received field.",
        since="2.1",
        default_text="the name of the host",
    ),
    Directive(
        "MilterMacro",
        "milter_macro",
        values.MILTER_MACRO,
        "A macro that milters get: one more, or another value for one that they get anyway. Lines add up; of two with"
        " the same name the last one counts. In the value %i is the client's address, %l the address to which it is"
        " connected, %s the server's, %% a percent sign. Macros about sender and recipients (mail_addr, rcpt_host and"
        " others) cannot be set.",
        since="2.1",
    ),
    Directive(
        "QuarantineDirectory",
        "quarantine_directory",
        values.PATH,
        "Where messages are kept that a filter of the chain (Filter) quarantines: the message and a JSON file with its"
        " envelope. proxsmtp-tp quarantine lists, shows, releases and deletes them. Without it a message is refused"
        " that would be quarantined.",
        since="2.1",
        default_text="none",
    ),
    Directive(
        "QuarantineReply",
        "quarantine_reply",
        values.QUARANTINE_REPLY,
        "What the client gets for a message that is kept: a code from 200 to 299, or 500 to 599, and a text.",
        since="2.1",
    ),
    Directive(
        "QuarantineMax",
        "quarantine_max",
        values.integer(1, _SPOOL_MAX),
        "How many octets QuarantineDirectory may take. When it is full, clients are told to try again later (452).",
        since="2.1",
    ),
    Directive(
        "QuarantineDays",
        "quarantine_days",
        values.integer(1, 3650),
        "After how many days a message that is kept is removed; when that is due, it happens with the next one that is"
        " kept.",
        since="2.1",
    ),
    Directive(
        "KeepRefused",
        "keep_refused",
        values.FILTER_NAMES,
        "Names of filters: a copy of each message that one of these rejects is kept in QuarantineDirectory, to find"
        " mail that was refused by mistake.",
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
    Directive(
        "Listen",
        "listen",
        values.LISTEN,
        "Where to accept connections: one or more addresses. A port alone means that port on all IPv4 and IPv6"
        " addresses.",
    ),
    Directive(
        "MaxConnections",
        "max_connections",
        values.integer(1, _CONNECTIONS_MAX),
        "How many connections may be open at once, in all workers together. Further ones get 421. One client (an IPv4"
        " address or an IPv6 /64) may have at most four times as many connections as are still free. This second limit"
        " does not apply to this host itself.",
    ),
    Directive(
        "Clients",
        "clients",
        values.NETWORKS,
        "Only clients from these networks are served; others get 554. Without it, all clients that reach the listener"
        " are served. If OutAddress is then a port alone, anybody can make this machine connect to their own address.",
        since="2.0",
        default_text="everybody",
    ),
    Directive(
        "ClientIPv4Prefix",
        "client_ipv4_prefix",
        values.integer(8, 32),
        "How many bits of an IPv4 address are one client, for the limits of a client (docs/limits.md). 24 for pools in"
        " which customers change their address.",
        since="2.1",
    ),
    Directive(
        "ClientIPv6Prefix",
        "client_ipv6_prefix",
        values.integer(16, 128),
        "The same for IPv6. A customer has at least a /64, and may choose any address in it; many have a /56.",
        since="2.1",
    ),
    Directive(
        "ClientConnections",
        "client_connections",
        values.AT_ONCE,
        "How many connections one client may have at once, in all workers together. Further ones get 421. With shadow"
        " they are only logged and counted. Programs of this host have no limits.",
        since="2.1",
        default_text="off",
    ),
    Directive(
        "ClientConnectionRate",
        "client_connection_rate",
        values.RATE,
        "How many connections one client may open per time, in all workers together. Further ones get 421. 60/1m burst"
        " 30: 30 at once, and 60 in each minute in the long run; without burst, the first number is the burst, too."
        " What is refused is not counted, and the reply tells when to try again. With shadow nothing is refused: what"
        " would be is logged and counted. Programs of this host have no limits.",
        since="2.1",
        default_text="off",
    ),
    Directive(
        "ClientServers",
        "client_servers",
        values.RATE,
        "How many different servers one client may connect to per time, as ClientConnectionRate. A server counts if the"
        " client has not connected to it in this period or the one before. A tenth more may pass, because the number is"
        " an estimate. Infected"
        " hosts deliver to many servers; a mail client uses one or two. Only with TransparentProxy.",
        since="2.1",
        default_text="off",
    ),
    Directive(
        "ClientMessages",
        "client_messages",
        values.RATE,
        "How many messages one client may send per time, as ClientConnectionRate. Further MAIL commands get 450.",
        since="2.1",
        default_text="off",
    ),
    Directive(
        "ClientRecipients",
        "client_recipients",
        values.RATE,
        "How many recipients one client may address per time, as ClientConnectionRate. Further RCPT commands get 450;"
        " the message goes to the recipients that were accepted.",
        since="2.1",
        default_text="off",
    ),
    Directive(
        "ClientRejects",
        "client_rejects",
        values.RATE,
        "How many recipients of one client servers may refuse per time (5xx to RCPT), as ClientConnectionRate. The"
        " server's reply is passed on; further MAIL and RCPT commands get 450. Those who guess addresses are"
        " found by this, and busy clients are not.",
        since="2.1",
        default_text="off",
    ),
    Directive(
        "ClientSpam",
        "client_spam",
        values.RATE,
        "How many messages of one client the filter may refuse per time (5xx), as ClientConnectionRate. Further MAIL"
        " commands get 450.",
        since="2.1",
        default_text="off",
    ),
    Directive(
        "ClientExcept",
        "client_except",
        values.NETWORKS,
        "Clients that have no limits and are never locked: mail servers, and gateways behind which there are many"
        " clients (NAT).",
        since="2.1",
    ),
    Directive(
        "ClientTableSize",
        "client_table_size",
        values.integer(8, 1 << 22),
        "How many clients are remembered for their limits, at 128 bytes each, or 256 with ClientServers. A client that"
        " has no space is served without limits, and counted. A change needs a restart.",
        since="2.1",
    ),
    Directive(
        "LockOn",
        "lock_on",
        values.LIMITS,
        "Limits that lock the client when it reaches them: it gets LockReply for LockDuration. Locks are kept over"
        " restarts. proxsmtp-tp locks lists and removes them. A limit in shadow form does not lock.",
        since="2.1",
    ),
    Directive(
        "LockDuration",
        "lock_duration",
        values.LOCK_DURATION,
        "How long a lock lasts. With 15m x2 max 1d the first lasts 15 minutes, and each further one twice as long as"
        " the one before, at most a day; after a week without a lock the client starts anew.",
        since="2.1",
    ),
    Directive(
        "LockReply",
        "lock_reply",
        values.choice(LockReply),
        "The code of the reply to a locked client: 421 (it tries again later) or 554 (its mail bounces). A transaction"
        " that has begun is not interrupted.",
        since="2.1",
    ),
    Directive(
        "LockCommand",
        "lock_command",
        values.TEXT,
        "A command that is run once for each new lock by /bin/sh -c, for at most 10 seconds, one at a time. It gets"
        " CLIENT, REASON, LIMIT, UNTIL, SECONDS, REPEATED and TRACE_ID in its environment. Mail does not wait for it.",
        since="2.1",
    ),
    Directive(
        "OutAddress",
        "out_address",
        values.OUT_ADDRESS,
        "Where mail goes. A port alone connects back to the client's own address on that port. Required,"
        " unless TransparentProxy is set: then it is ignored.",
    ),
    Directive(
        "Skip",
        "skip_authenticated",
        values.SKIP,
        "authenticated: the mail of clients that logged in with SMTP AUTH is not filtered.",
        default_text="nothing",
    ),
    Directive(
        "TempDirectory",
        "temp_directory",
        values.REQUIRED_PATH,
        "The directory for large messages and for the files of FilterType file. Only User should be able to write to"
        " it.",
    ),
    Directive(
        "TimeOut",
        "time_out",
        values.SECONDS,
        "How long the daemon waits for a silent client or server, in every phase. For the reply to a message it waits"
        " at least ten minutes, because a shorter time leads to duplicate messages. Without this directive the limits"
        " of RFC 5321 section 4.5.3.2 apply: 5 minutes for the greeting, for a command and for its reply, 2 for the"
        " reply to DATA, 3 for the next piece of a message, 10 for the reply to the message.",
        default_text="2 to 10 minutes, depending on the phase (RFC 5321)",
    ),
    Directive(
        "ConnectTimeOut",
        "connect_time_out",
        values.SECONDS,
        "How long one address of the server may take to accept a connection before the next address is tried.",
        since="2.0",
    ),
    Directive(
        "MessageTimeOut",
        "message_time_out",
        values.SECONDS,
        "How long one message may take from 354 to its final dot, even if data keeps arriving.",
        since="2.0",
    ),
    Directive(
        "MessageSizeLimit",
        "message_size_limit",
        values.integer(0, _SIZE_MAX),
        "How many octets a message may have; 0 means no limit. A larger one is refused with 552. If the server's SIZE"
        " is larger, clients see this limit instead. If there is a filter, the server's own SIZE is enforced too.",
        since="2.1",
        default_text="0, as 1.10 has none",
    ),
    Directive(
        "SpoolLimit",
        "spool_limit",
        values.integer(0, _SPOOL_MAX),
        "How many octets all messages that are stored for filters may take, in all workers together; 0 means no limit."
        " A message that would exceed it is refused with 452. In any case 64 MB of the file system of TempDirectory"
        " stay free, or one twentieth of it if that is less.",
        since="2.1",
        default_text="0, limited only by the free space of TempDirectory",
    ),
    Directive(
        "MinDataRate",
        "min_data_rate",
        values.integer(0, 1 << 30),
        "How many octets a second of a message a client must send; 0 means no minimum. Each piece of a message extends"
        " the client's deadline by the time that the piece takes at this rate, up to TimeOut from now. A slower client"
        " gets 421.",
        since="2.1",
        default_text="500, as Postfix's smtpd_min_data_rate",
    ),
    Directive(
        "SessionTimeOut",
        "session_time_out",
        values.SECONDS,
        "How long one connection may last. The default is four times that of MessageTimeOut. It ends connections that"
        " are kept open without use.",
        since="2.0",
    ),
    Directive(
        "DrainTimeOut",
        "drain_time_out",
        values.SECONDS,
        "How long running transactions may take to finish after TERM or a reload. Then their clients get 421.",
        since="2.0",
    ),
    Directive(
        "TransparentProxy",
        "transparent_proxy",
        values.TRANSPARENT_PROXY,
        "off: mail goes to OutAddress. client (or on): mail goes to the server that the client connected to, from the"
        " gateway's address. full: the same, from the client's own address.",
    ),
    Directive(
        "ConnectFailure",
        "connect_failure",
        values.choice(ConnectFailure),
        "What a client gets if its server cannot be reached, or closes or stays silent before its greeting. reset: the"
        " client's connection is reset without a reply, so that the client tries the next address, as it would without"
        " the proxy. refuse: the same, and for 10 seconds the rules refuse new connections to an address that could not"
        " be reached (with RuleInterface or RuleLocal in this file). reply: the client gets 421 with the reason.",
        since="2.1",
        default_text="refuse with TransparentProxy client or full, otherwise reply",
    ),
    Directive(
        "BareNewline",
        "bare_newline",
        values.choice(BareNewline),
        "What happens to a bare CR or LF in a message. normalize: it is replaced by CR LF. reject: the message is"
        " refused with 550.",
        since="2.0",
    ),
    Directive(
        "User",
        "user",
        values.REQUIRED_TEXT,
        "The user to run as, by name or number, with its groups. The daemon must be started as root.",
        default_text="the user that starts the daemon",
    ),
    Directive(
        "AuthWithoutTls",
        "auth_without_tls",
        values.SWITCH,
        "What happens to logins that show the password (AUTH PLAIN, LOGIN, XOAUTH2) if the server offers STARTTLS,"
        " which the proxy removes. off: the proxy removes these logins too. on: it keeps them, and passwords cross the"
        " network in clear.",
        since="2.1",
    ),
    Directive(
        "XClient",
        "x_client",
        values.SWITCH,
        "Send XCLIENT with the client's address, and with the name that the client gave in EHLO, as far as the server"
        " offers these attributes. After HELO, whose reply offers nothing, the address is sent all the same. Until the"
        " server has accepted XCLIENT, a client may send only EHLO, HELO, NOOP, RSET and QUIT.",
    ),
    Directive(
        "XClientRequired",
        "x_client_required",
        values.SWITCH,
        "What happens with XClient if the server does not offer XCLIENT, or refuses it. on: the session ends with 421,"
        " because the server would take this gateway's address for the client's. off: the session continues without"
        " XCLIENT, as in 1.10.",
        since="2.1",
    ),
    Directive(
        "XForwardClients",
        "x_forward_clients",
        values.NETWORKS,
        "Clients in these networks, and those on unix sockets, may send XFORWARD, which tells the server and filters"
        " for which client they relay. From others it is refused. A server that sees only this gateway's address cannot"
        " decide that itself.",
        since="2.1",
        default_text="with XClient nobody, otherwise all clients that the server allows",
    ),
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
        "The form of log lines. proxsmtpd: that of 1.10, with more fields behind. postfix: as Postfix writes them, for"
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
        "Where an event for each transaction goes, as one JSON object: off, a file (which may be rotated by moving it),"
        " unix: and the path of a socket, or journal, where it has fields. Mail never waits for it: what is not taken"
        " in time is lost, and `proxsmtp-tp status` counts it. See docs/logging.md.",
        since="2.1",
    ),
    Directive(
        "Workers",
        "workers",
        values.integer(0, _WORKERS_MAX),
        "How many processes share the work. 0 means one for each core.",
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
    Directive(
        "RuleMethod",
        "rule_method",
        values.choice(RuleMethod),
        "Which firewall install-rules uses.",
        since="2.0",
    ),
    Directive(
        "RuleMode",
        "rule_mode",
        values.choice(RuleMode),
        "redirect: NAT redirects connections to the daemon. tproxy: they reach the daemon without NAT, by policy"
        " routing.",
        since="2.0",
    ),
    Directive(
        "RuleInterface",
        "rule_interface",
        values.INTERFACES,
        "The interfaces on which connections of clients arrive. install-rules needs at least one, unless RuleLocal is"
        " on.",
        since="2.0",
    ),
    Directive(
        "RuleSource",
        "rule_source",
        values.NETWORKS,
        "Only clients from these networks are intercepted.",
        since="2.0",
        default_text="all",
    ),
    Directive(
        "RuleExceptSource",
        "rule_except_source",
        values.NETWORKS,
        "Clients from these networks are not intercepted.",
        since="2.0",
    ),
    Directive(
        "RuleExceptDestination",
        "rule_except_destination",
        values.NETWORKS,
        "Connections to these networks are not intercepted.",
        since="2.0",
    ),
    Directive(
        "RulePort",
        "rule_port",
        values.PORTS,
        "The ports whose connections are intercepted.",
        since="2.0",
    ),
    Directive(
        "RuleListenPort",
        "rule_listen_port",
        values.PORT,
        "The port of the daemon that receives the intercepted connections.",
        since="2.0",
        default_text="the first port of Listen",
    ),
    Directive(
        "RuleFail",
        "rule_fail",
        values.choice(RuleFail),
        "What happens while the daemon is down. closed: connections are refused. open: they pass unfiltered.",
        since="2.0",
    ),
    Directive(
        "RuleExisting",
        "rule_existing",
        values.choice(RuleExisting),
        "What happens to connections that began unfiltered, before the rules or while RuleFail let them pass. reset:"
        " they are reset, and the client sends the rest again. finish: they continue unfiltered until they end.",
        since="2.1",
    ),
    Directive(
        "RuleForward",
        "rule_forward",
        values.choice(RuleForward),
        "What install-rules does if interception would allow connections that forward chains of the firewall or policy"
        " routing of this machine block. refuse: it installs nothing, and names these rules. overrule: it installs.",
        since="2.1",
    ),
    Directive(
        "RuleLocal",
        "rule_local",
        values.SWITCH,
        "Also intercept the outgoing mail of this machine, except the daemon's own.",
        since="2.0",
    ),
)

BY_NAME: dict[str, Directive] = {row.name.lower(): row for row in DIRECTIVES}
"""The rows by lower-case name: the case of a name does not matter."""
