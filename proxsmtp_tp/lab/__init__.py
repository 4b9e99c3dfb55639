"""A whole gateway on one machine: sender, gateway and MX in network namespaces, with real mail.

isolate   runs a command in network, mount and process namespaces: it changes nothing outside, and leaves no process
network   hosts, links, addresses and routes; processes and sockets in them
gateway   the daemon and its rules on a host, run by the real commands; the state of a host, for comparison
client    an SMTP client that sends exactly what it is given
mx        an SMTP server that stores what it gets, and reports it
demo      `proxsmtp-tp demo`
demo_tls  its part with TLS
scenario  the demo: what is sent, and what must happen
screen    the demo: how it is shown

sample-filter.sh is a filter that can be copied. The demo and the tests use this package.
"""
