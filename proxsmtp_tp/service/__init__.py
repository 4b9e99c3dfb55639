"""The daemon: processes, privileges, signals and logs.

launch      from a configuration to a running daemon, in the order that privileges require
detaching   the daemon in the background: when the process that was started may end
master      keeps the listening sockets and the workers, handles signals, reloads
environment  what the master is given by launch
report      what the master shows: the values of status, and the metrics
reload      the configuration, read again: what a reload needs before its workers are started
signals     the signals of the master, as bytes in a socket
generation  the workers of one configuration: started, replaced, drained
worker      one process with an event loop and a Proxy in it
locks       locks of clients: asked for by workers, kept in a file
limit_commands  commands of the control socket about limits and locks of clients
lock_events  events of locks (EventLog)
table_space  warns when clients find no space in the table of clients
lock_book   locks as values: who is locked until when, and how often before
state_directory  what an instance keeps over restarts
privileges  from root to the least privileges that are needed, verified
fail_open   the heartbeat for rules with RuleFail open, and the log of unfiltered times
installed   where the commands are, and whether the Debian package installed them
pidfile     the file with the process id
unix_listener  the unix sockets of the master, and how a command reads the answer
metrics_socket  all metrics as text, for a reader without privileges
activity    what the status shows of the work of all workers
faults      faults that a status shows, with the fix
status      the socket that tells what the daemon does
control     the socket for commands that ask or change the running daemon
in_force    which configuration is in force, since when, and how the last reload ended
commands    the commands of the control socket
top_report  what top shows
filter_trials  the daemon tries a filter, for try-filter
trial_link  messages and verdicts between try-filter and the process that tries the filter
key_files   files of certificates and keys: who may read a key, our CAs, own certificates
tls_keys    what TLS with clients needs, in the master
ca_renewal  a new CA before the old one expires
lending     keys of CAs that root opens for a daemon which runs as one user from its start
minting     the process that alone has the keys of our CAs, and makes certificates
id_lease    trace ids stay unique over restarts, even if the clock goes back
bypass      for a time mail passes without the filter
log_levels  the log level, and clients whose sessions are traced
kept_listeners  the listening sockets that the service manager keeps over a restart
readiness   messages to the service manager (sd_notify(3))
logging     where log lines go, and their form
journal     lines for the journal with a name of their own
syslog      log lines to /dev/log, without blocking
version     the installed version

The master never reads a byte of a peer. No worker has a privilege that a filter could inherit.
"""
