"""The daemon around the proxy: processes, rights, signals and logs.

launch       from a configuration to a running daemon, in the order that rights allow
master       holds the listening sockets, keeps workers, hears signals, reloads
generation   the workers of one configuration: started, replaced, drained
worker       one process with an event loop and a Proxy in it
privileges   from root to the least that is needed, verified
pidfile, status, readiness, logging, version
             what the world outside sees of it

The master never reads a byte of a peer's; a worker never has a right that it could give to a filter.
"""
