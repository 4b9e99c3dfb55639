"""The SMTP dialogue of one connection: events in, effects out. Pure: no socket, no clock, no await.

session      the entry point: `Session.feed(event)` returns the effects
events       what can happen to a connection
effects      what the driver must do about it
limits       what the session is told about the limits of its client
options      the configured values that the dialogue depends on
state        the tables: phases, what is waited for, and which replies may answer which command
dialogue     the state of one connection, and the basic operations on it; makes no decision
parts        parts of that state: a command that waits for its reply, the message
record       what the session remembers for the log and for events; no decision depends on it
waits        the deadlines: which one holds until a reply comes, or in a phase
bounds       the part of the state that limits a session: waiting input, counters of refused commands
client       decisions on the client's bytes: which line is handled when
verbs        decisions on the client's commands
server       decisions on the server's replies
ehlo         decisions on the server's greeting, and on its replies to EHLO, HELO and XCLIENT
message      decisions from DATA to the final reply to the message
changed_envelope  the filters want another envelope: what the server is told before DATA
refusing     commands that the proxy refuses itself: they are counted, and too many end the connection
limiting     the limits of a client: at which points of the dialogue they refuse, and with which reply
size         how large a message may be
measuring    which counters a reply belongs to
tracing      what a trace shows of commands and replies: everything but secrets
timing       decisions when a deadline passes, and when the worker stops
passing      TLS of the client with the server that is passed on, not judged
starttls     STARTTLS where it is not removed: pass, terminate or refuse, and what both sides then forget
wrapped      TLS from the first octet (port 465): how it begins
encrypting   UpstreamTls for a client in clear: the server's leg gets TLS before MAIL, AUTH and the like
without_tls  decisions where the proxy has removed STARTTLS
xclient      XCLIENT, which the proxy sends, and XFORWARD, which clients send

Every protocol decision of the proxy is made here and nowhere else.
"""
