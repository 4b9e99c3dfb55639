"""The directives of listening, and of the limits and locks of clients."""

from __future__ import annotations

from proxsmtp_tp.config import values
from proxsmtp_tp.config.directives.directive import Directive
from proxsmtp_tp.config.rates import LockReply

# A connection takes two descriptors, and the kernel gives a process at most fs.nr_open = 1048576 by default.
_CONNECTIONS_MAX = 1048576 // 2

CLIENTS: tuple[Directive, ...] = (
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
        "How many leading bits of an IPv4 address identify a client, for the limits of a client (docs/limits.md)."
        " Write 24 for networks whose customers change their address.",
        since="2.1",
    ),
    Directive(
        "ClientIPv6Prefix",
        "client_ipv6_prefix",
        values.integer(16, 128),
        "How many leading bits of an IPv6 address identify a client. A customer has at least a /64, and may choose"
        " any address in it; many have a /56.",
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
        " What is refused is not counted, and the reply tells when to try again. With shadow nothing is refused:"
        " connections that would be are logged and counted. Programs of this host have no limits.",
        since="2.1",
        default_text="off",
    ),
    Directive(
        "ClientServers",
        "client_servers",
        values.RATE,
        "How many different servers one client may connect to per time (see ClientConnectionRate). A server counts if"
        " the client has not connected to it in this period or the one before. Up to a tenth more may pass, because"
        " the number is an estimate. Infected hosts deliver to many servers; a mail client uses one or two. Only with"
        " TransparentProxy.",
        since="2.1",
        default_text="off",
    ),
    Directive(
        "ClientMessages",
        "client_messages",
        values.RATE,
        "How many messages one client may send per time (see ClientConnectionRate). Further MAIL commands get 450.",
        since="2.1",
        default_text="off",
    ),
    Directive(
        "ClientRecipients",
        "client_recipients",
        values.RATE,
        "How many recipients one client may address per time (see ClientConnectionRate). Further RCPT commands get 450;"
        " the message goes to the recipients that were accepted.",
        since="2.1",
        default_text="off",
    ),
    Directive(
        "ClientRejects",
        "client_rejects",
        values.RATE,
        "How many recipients of one client servers may refuse per time (5xx to RCPT; see ClientConnectionRate). The"
        " server's reply is passed on; further MAIL and RCPT commands get 450. This limit finds clients that guess"
        " addresses, and spares busy ones.",
        since="2.1",
        default_text="off",
    ),
    Directive(
        "ClientSpam",
        "client_spam",
        values.RATE,
        "How many messages of one client the filter may refuse per time (5xx; see ClientConnectionRate). Further MAIL"
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
        "For how many clients the use of their limits is stored, at 128 octets each, or 256 with ClientServers. When"
        " the table is full, a further client is served without limits, and counted. A change needs a restart.",
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
        "How long a lock lasts. With 15m x2 max 1d the first lock lasts 15 minutes, and each further one twice as"
        " long as the one before, at most a day. After a week without a lock, the next one lasts 15 minutes again.",
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
)
