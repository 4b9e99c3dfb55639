"""The directives of sessions: where mail goes, times and sizes, what is offered to clients and said to servers."""

from __future__ import annotations

from proxsmtp_tp.config import values
from proxsmtp_tp.config.directives.directive import Directive
from proxsmtp_tp.config.parsing import INTEGER_MAX
from proxsmtp_tp.config.settings import BareNewline, ConnectFailure

# Two gigabytes: more than any server accepts.
_SIZE_MAX = (1 << 31) - 1

SESSIONS: tuple[Directive, ...] = (
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
        values.integer(0, INTEGER_MAX),
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
        " offers these attributes. After HELO, whose reply offers nothing, the address is sent anyway. Until the"
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
)
