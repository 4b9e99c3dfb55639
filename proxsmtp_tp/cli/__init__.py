"""The command lines. Each module of a subcommand has `register(subparsers)`, which adds its parsers.

The parser has `func` set to `run(args) -> int`. Exit codes: 0 done, 1 it did not work, 2 usage or configuration.

main            proxsmtp-tp: imports the module of the subcommand
instances       which instance a command means: -f, --instance, or neither
proxsmtpd       the command line of proxsmtpd 1.10
serve           serve
check_config    check-config
reload          reload
status          status
metrics         metrics
status_lines    the lines of status about the work of an instance
log_level       log-level
try_filter      try-filter
check_filters   check-filters
filter_process  the process in which try-filter runs the filter
difference      what the filter has changed
bypass          bypass
sessions        sessions
top             top: its options, and its text for scripts
top_screen      the terminal of top
top_lines       its lines
top_state       what is chosen in it, and what its keys do
top_summary     its lines above the table
top_rows        its tables
top_reading     what it has read from the daemon
limits          limits
locks           locks
quarantine      quarantine
release         sends a message from quarantine
events          the events in the file that EventLog names
explain         explain
tls_policy      tls-policy
tls_ca          tls-ca
tls_text        what lines about TLS mean, for check-config and tls-policy
state_files     where the daemon keeps its files, for commands of root
addresses       addresses of clients and servers as they are typed
daemon          asks a running daemon at its control socket
durations       times as they are typed and shown
rules           install-rules, remove-rules, check-rules: their options
rule_actions    what these three do
rules_list      rules
watch_rules     watch-rules
doctor          doctor: its options
doctor_actions  what it does
doctor_daemon    status and replies of the daemon, for doctor
doctor_tls      what doctor says of TLS: certificates, keys, the resolver
filters_as_daemon  connects to filters as the daemon's user, and reports what they are: a program of doctor
service         install-service, remove-service
service_first_upgrade  the restart of a daemon of release 2.0.0, which gives systemd no sockets
service_metrics  install-service --metrics: where the numbers are served
service_apply   restarts and reloads by install-service
service_units   the files that install-service writes
unit_owner      whether the Debian package installed the units
demo            demo
streams         opens standard streams that the caller has closed
"""
