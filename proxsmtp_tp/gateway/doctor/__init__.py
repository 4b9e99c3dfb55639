"""Examines each step of interception: ok, or what is wrong and the command that fixes it.

examination  all steps, in the order in which a packet travels
steps        runs them at the same time, each with a limit
findings     the result of a step, and the input of every step
fixes        every command that is named as a fix
host         interfaces, forwarding, reverse paths, IPv6, bridges, connection tracking
rules        the rules in place, policy routing, delivery of marked packets, heartbeat
firewall     whether other rules let intercepted connections in
replica      a copy of the host, in which such a connection is tested; the host itself is not changed
forwarding   whether interception opens connections that the host's forwarding policy closes
listeners    the daemon's unit, its listeners, privileges, descriptors
unit         the unit as systemd has it, and the last lines of a log
daemon_view  temp directory, as the daemon sees it
filter_view  filters, as the daemon sees them
daemon_access  the program that looks in the daemon's namespaces, as its user
load         the daemon's status: connections, filters, workers, configuration, log
own_connections  connections of doctor to the daemon, announced to it before
servers      the servers that the daemon connects to; who can connect to a daemon without rules
probe        real mails from a temporary client through rules and daemon to a temporary server
probe_tls    its mails by TLS: which are sent, and the findings about them
prober       the process that makes client and server, and sends the mails
mail_peers   the client and the server
verdicts     how a filter refused or discarded a mail of the probe

The steps never change the host. `probe` adds two links, which end with its processes.
"""
