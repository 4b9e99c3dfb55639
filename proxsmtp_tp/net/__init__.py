"""Sockets: where connections come from, where they go, and the one place that writes to a peer.

listening             the sockets that wait for clients
admission             the table that all workers share: MaxConnections, our own upstream end points
original_destination  where a redirected client wanted to go
dialling              the upstream connection
connection            one client, one server: performs what the session decides
proxy                 one worker's share: accepts, keeps time, drains
"""
