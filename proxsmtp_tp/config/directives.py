"""THE table of directives: the only place where one is described.

The reader takes names and kinds from here, `Settings` holds the default of each, and the man page,
`check-config` and the documentation check are made from these rows. A new directive is one row here and one
field in `Settings`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from proxsmtp_tp.config import values
from proxsmtp_tp.config.settings import (
    BareNewline,
    ConnectFailure,
    FilterType,
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
# Beyond the cores of the largest machines a worker only costs memory; a row of the shared table names it in a
# byte.
_WORKERS_MAX = 255
# All that ten digits can say.
_SPOOL_MAX = 9_999_999_999
# Two gigabytes: more than any server takes.
_SIZE_MAX = (1 << 31) - 1
# /proc/sys/kernel/pid_max is at most 2^22: no system runs more.
_PROCESSES_MAX = 1 << 22


@dataclass(frozen=True, slots=True)
class Directive:
    """One row. `since` is the version that brought it: "1.10" for the directives of proxsmtpd."""

    name: str
    field: str
    kind: Kind
    text: str
    since: str = "1.10"
    default_text: str = ""
    """Says in words what the default means, where the value alone does not."""

    @property
    def default(self) -> object:
        """The default of the field in `Settings`."""
        return _DEFAULTS[self.field]

    @property
    def shown_default(self) -> str:
        """The default for people."""
        if self.default_text:
            return self.default_text
        return "none" if self.default in {None, ()} else self.kind.show(self.default)


DIRECTIVES: tuple[Directive, ...] = (
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
        "How long the filter may take once it has the whole message. It starts when the message is complete; while"
        " it still reads, each piece that it takes gives it the whole time again. Then all that it started is ended"
        " and the client is told to come back later.",
    ),
    Directive(
        "FilterReject",
        "filter_reject",
        values.REPLY,
        "The reply with which FilterType reject refuses: a code from 400 to 599 and a text. Before a text alone stands"
        " 550 Content Rejected.",
    ),
    Directive(
        "FilterType",
        "filter_type",
        values.choice(FilterType),
        "pipe: the message on standard input, the rewritten one on standard output. file: in the file that"
        " EMAIL names. reject: refuse everything with FilterReject. smtp: hand it to a scanner that speaks"
        " SMTP.",
    ),
    Directive(
        "FilterProcesses",
        "filter_processes",
        values.integer(1, _PROCESSES_MAX),
        "How many filters may run at once, over all workers; further messages wait. A free place goes to the client (an"
        " IPv4 address or an IPv6 /64) that has the fewest, in turn where several have as few. The default is"
        " what 1.10 could run with its default MaxConnections.",
        since="2.0",
    ),
    Directive(
        "Header",
        "header",
        values.TEXT,
        "A header to add to messages that passed: %i client, %l local address, %d date, %% percent; \\r, \\n and \\t.",
    ),
    Directive(
        "KeepAlives",
        "keep_alives",
        values.SECONDS_OR_OFF,
        "How often the server gets a NOOP while the message comes in slowly or the filter works, so that"
        " it does not hang up. Servers count such commands: no more than one a minute and eight in a session are sent."
        " 240 keeps a server that waits five minutes for over half an hour.",
    ),
    Directive(
        "Listen",
        "listen",
        values.LISTEN,
        "Where to accept connections: one or more addresses. A port alone is that port on all IPv4 and IPv6 addresses.",
    ),
    Directive(
        "MaxConnections",
        "max_connections",
        values.integer(1, _CONNECTIONS_MAX),
        "How many connections may be open at once, over all workers; one more is told 421. A client (an IPv4 address or"
        " an IPv6 /64) may have at most four times as many as are still free, this host itself excepted.",
    ),
    Directive(
        "Clients",
        "clients",
        values.NETWORKS,
        "Only clients from these networks are served; others are told 554. Without it, whoever reaches the listener is;"
        " with a port alone as OutAddress that lets anybody have this machine connect to their own address.",
        since="2.0",
        default_text="everybody",
    ),
    Directive(
        "OutAddress",
        "out_address",
        values.OUT_ADDRESS,
        "Where mail goes. A port alone connects back to the client's own address on that port. Needed unless"
        " TransparentProxy is set, which ignores it.",
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
        "Where large messages and the files of FilterType file are kept. It should be writable by User alone.",
    ),
    Directive(
        "TimeOut",
        "time_out",
        values.SECONDS,
        "How long a peer may be silent while we wait for it, in every phase. For its reply to a message the server has"
        " at least ten minutes: who gives up earlier delivers it twice. Without this directive the limits are those of"
        " RFC 5321 section 4.5.3.2: 5 minutes for the greeting, for a command and for its reply, 2 for the reply to"
        " DATA, 3 for the next piece of a message, 10 for the reply to it.",
        default_text="2 to 10 minutes, for each phase as RFC 5321 has it",
    ),
    Directive(
        "ConnectTimeOut",
        "connect_time_out",
        values.SECONDS,
        "How long one address of the server may take to accept our connection before the next is tried.",
        since="2.0",
    ),
    Directive(
        "MessageTimeOut",
        "message_time_out",
        values.SECONDS,
        "How long one message may take from 354 to its final dot, however steadily it flows.",
        since="2.0",
    ),
    Directive(
        "MessageSizeLimit",
        "message_size_limit",
        values.integer(0, _SIZE_MAX),
        "How many octets a message may have, 0 for no limit; a larger one is refused with 552. Clients see it in the"
        " server's SIZE, where that is larger. Where a filter judges, the server's own SIZE is a limit too.",
        since="2.1",
        default_text="0, as 1.10 has none",
    ),
    Directive(
        "SpoolLimit",
        "spool_limit",
        values.integer(0, _SPOOL_MAX),
        "How many octets all messages that are kept for filters may take together, over all workers, 0 for no limit: a"
        " message that would take more is refused with 452. Whatever it says, 64 MB of TempDirectory's file system"
        " stay free, or a twentieth where that is less.",
        since="2.1",
        default_text="0, as much as TempDirectory has room for",
    ),
    Directive(
        "MinDataRate",
        "min_data_rate",
        values.integer(0, 1 << 30),
        "How many octets a second of a message a client must send, 0 for no minimum. Each piece of a message gives the"
        " client the time that it takes at this rate, and never more than TimeOut to the next: who sends less is told"
        " 421.",
        since="2.1",
        default_text="500, as Postfix's smtpd_min_data_rate",
    ),
    Directive(
        "SessionTimeOut",
        "session_time_out",
        values.SECONDS,
        "How long one connection may last. The default has room for a message at its limit several times"
        " over, and ends a peer that keeps a place for nothing.",
        since="2.0",
    ),
    Directive(
        "DrainTimeOut",
        "drain_time_out",
        values.SECONDS,
        "How long running transactions may take to finish after TERM or a reload. Then their clients are told 421.",
        since="2.0",
    ),
    Directive(
        "TransparentProxy",
        "transparent_proxy",
        values.TRANSPARENT_PROXY,
        "off: mail goes to OutAddress. client (or on): to the server that the client dialled, from the"
        " gateway's address. full: the same, from the client's own address.",
    ),
    Directive(
        "ConnectFailure",
        "connect_failure",
        values.choice(ConnectFailure),
        "What a client gets whose server can not be reached, or closes or says nothing before its greeting. reset: its"
        " connection is reset without a word, so that it goes on to the next address, as it would without us."
        " refuse: the same, and for 10 seconds the rules refuse new connections to an address that could not be"
        " reached (with RuleInterface or RuleLocal in this file). reply: 421 with the reason.",
        since="2.1",
        default_text="refuse with TransparentProxy client or full, otherwise reply",
    ),
    Directive(
        "BareNewline",
        "bare_newline",
        values.choice(BareNewline),
        "What becomes of a CR or LF that stands alone in a message. normalize: it is made CR LF. reject:"
        " the message is refused with 550.",
        since="2.0",
    ),
    Directive(
        "User",
        "user",
        values.REQUIRED_TEXT,
        "The user to run as, by name or number, with its groups. Needs a start as root.",
        default_text="the user that starts the daemon",
    ),
    Directive(
        "AuthWithoutTls",
        "auth_without_tls",
        values.SWITCH,
        "What becomes of logins that show the password (AUTH PLAIN, LOGIN, XOAUTH2) where a server offers STARTTLS,"
        " which is taken away. off: they are taken away, too. on: they stay, and passwords cross the network in clear.",
        since="2.1",
    ),
    Directive(
        "XClient",
        "x_client",
        values.SWITCH,
        "Tell the server the client's address with XCLIENT, and its name in EHLO, where it offers that; after HELO,"
        " which offers nothing, the address all the same. Before the server has accepted it, a client can say EHLO,"
        " HELO, NOOP, RSET and QUIT only.",
    ),
    Directive(
        "XClientRequired",
        "x_client_required",
        values.SWITCH,
        "What XClient does where the server does not offer XCLIENT, or refuses it. on: the session ends with 421, since"
        " the server would take this gateway's address for the client's. off: mail goes on without, as with 1.10.",
        since="2.1",
    ),
    Directive(
        "XForwardClients",
        "x_forward_clients",
        values.NETWORKS,
        "Clients in these networks, and those on unix sockets, may send XFORWARD, which tells server and filters"
        " whom they act for; from others it is refused. Where the server sees this gateway's address, it can not judge"
        " that itself.",
        since="2.1",
        default_text="with XClient nobody, otherwise everybody whom the server lets",
    ),
    Directive(
        "PidFile",
        "pid_file",
        values.PATH,
        "The file that holds the daemon's process id while it runs. It goes before -p of the command line.",
    ),
    Directive(
        "Workers",
        "workers",
        values.integer(0, _WORKERS_MAX),
        "How many processes share the work. 0 is one for each core.",
        since="2.0",
        default_text="0, one for each core",
    ),
    Directive(
        "Instance",
        "instance",
        values.INSTANCE,
        "The name of this instance: its rules and its runtime files carry it.",
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
        "redirect: NAT turns connections to us. tproxy: they are handed over untouched, with policy routing.",
        since="2.0",
    ),
    Directive(
        "RuleInterface",
        "rule_interface",
        values.INTERFACES,
        "The interfaces that clients come in by. install-rules needs at least one, unless RuleLocal is on.",
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
        "The port of ours that connections are turned to.",
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
        " they are ended, and the client sends the rest again. finish: they go on unfiltered until they end.",
        since="2.1",
    ),
    Directive(
        "RuleForward",
        "rule_forward",
        values.choice(RuleForward),
        "What install-rules does where interception would open connections that the firewall's forward chains or the"
        " policy routing of this machine close. refuse: it installs nothing, and names them. overrule: it installs.",
        since="2.1",
    ),
    Directive(
        "RuleLocal",
        "rule_local",
        values.SWITCH,
        "Intercept the outgoing mail of this machine, too; the daemon's own excepted.",
        since="2.0",
    ),
)

BY_NAME: dict[str, Directive] = {row.name.lower(): row for row in DIRECTIVES}
"""The rows by lower-case name: names are not case-sensitive."""
