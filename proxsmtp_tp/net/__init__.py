"""Sockets: accepts clients, connects to their servers, and performs what the session decides.

proxy                 one worker's part of the proxy: accepts clients, keeps their deadlines, drains
connection            one client and its server: performs the effects of the session; only it writes to a peer
opening               the beginning of a connection: its client, its destination, the connection to its server
back_pressure         which side of a connection is read; a slow side stops the other one
tls_connection        TLS of a connection: performs the effects of session.starttls
tls_leg               one side in TLS: between its plain transport and the connection
tls_sides             the two legs of a connection
tls_passing           TLS of a client with its server, passed on unread, while it is TLS
tls_rejections        which clients have rejected our certificate for which server, in memory that all workers share
tls_worker            what the connections of a worker need for TLS
sides                 the two transports of a connection: asyncio's callbacks
judging               the filter run of a connection's message, and the judged message that is read back
reporting             log lines about a connection: the form of what the session reports
doctor_sessions       which connections are those of doctor, which are not logged or counted
measuring             counters and durations of a message
session_row           what is shown of a connection in the table of sessions
deadlines             the time limits of a connection
upstream              the destination of a client, and the connection to it; refuses loops
context               what all connections of one worker share
listening             the sockets that accept clients
admission             MaxConnections and our own connections, in a table that all workers share
tracing               log level and traced clients, as the master has set them
client_table          what is known about each client, in memory that all workers share
client_limits         the limits of clients in one worker
limit_decision        which limits a client has reached; pure
simulation            what the daemon would answer a client: a session without sockets that counts nothing
serving               who is served, and with which options
gcra                  a rate limit with a burst, in one number; pure
floods                refused connections, told once a second; clients that have most
log_limit             how many log lines one client may cause
original_destination  the address that a client dialled before the firewall redirected the connection
refused_destinations  original destinations that are refused: not a server's address, or this host's own
own_addresses         whether an address belongs to this host
dialling              connects to the first address that answers
refusals              makes the rules refuse new connections to a server that cannot be reached
handshake_limits      how many TLS handshakes run at once in a worker, and how many of one client
tls_stream            one TLS leg without I/O: bytes of the transport in, plain text out, and the reverse
tls_contexts          the settings of the TLS engine for both legs; one context for each certificate
tls_groups            key exchange by curves only, because of what finite fields cost
watching              tries such a server again until it accepts connections
tls_certificates      the certificate that a client sees: own ones, and those that the minting process makes
tls_resolver          TLSA records of a server, from a resolver of this host that validates DNSSEC
source_port           full mode: the client's address, with a port that the client does not use
"""
