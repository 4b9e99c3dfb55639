"""A whole gateway on one machine: sender, gateway and MX in namespaces of their own, with real mail.

isolate     runs a command in network, mount and process namespaces: nothing outlives it, nothing outside changes
network     hosts, links, addresses and routes; processes and sockets inside them
gateway     the daemon and its rules on a host, by the commands that people type; what a box looks like
client, mx  a sender that sends exactly what it is given; an MX that keeps what it gets and tells it
demo        `proxsmtp-tp demo`, with scenario (what is sent, what must come of it) and screen (how it is shown)

sample-filter.sh is what its name says, fit to be copied. The demo and the tests under tests/ are built on this room.
"""
