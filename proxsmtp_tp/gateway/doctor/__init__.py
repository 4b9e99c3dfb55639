"""Each step of interception, looked at: ok, or what is wrong and the command that fixes it.

findings    what a look gives; what every look gets to know
box         PURE of daemons: interfaces, forwarding, reverse paths, IPv6, bridges, connection tracking
rules       the rules in place, policy routing, heartbeat
firewall    whether other people's rules let intercepted connections in: tried out in a twin of the box
twin        the twin: the box's rulesets in an empty namespace, with a client; nothing of the box is touched
daemon      listeners, privileges, descriptors, temp directory, filter
examination all of it, in the order in which a packet travels
probe       the proof: a real mail from a throw-away client through rules and daemon to a throw-away server

Looks never change the box. `probe` adds two links that vanish with its processes.
"""
