"""Sockets: where connections come from, where they go, and the one place that writes to a peer.

listening             the sockets that wait for clients
admission             the table that all workers share: MaxConnections, our own upstream end points
proxy                 one worker's share: accepts, keeps time, drains
connection            one client, one server: performs what the session decides
  sides               its two transports, in asyncio's words
  judging             its message at the filter, and back
  deadlines           its time limits
  upstream            where its client wants to go, and the connection there, never in a circle
context               what the connections of one worker share
log_limit             how many lines of the log one client may cause
original_destination  where a redirected client wanted to go
refused_destinations  which of these are no server's, or lead back to this host
own_addresses         which addresses are this host's
dialling              connecting to the first address that answers
refusals              having the rules refuse connections to a server that can not be reached
watching              trying such a server until it is back
source_port           full mode: from the client's address, by a port that it does not use itself
"""
