"""What the daemon counts, for `status` and other programs. Standard library only.

dates             a date as mail writes it
counters          events counted by all workers in shared memory
refused_connections  how many connections were refused, in shared memory
addresses         how mail addresses are shown (LogAddresses)
event_log         where events go: a file, a socket, the journal
events            events as values for JSON
forms             the forms of log lines (LogFormat)
postfix_lines     log lines in Postfix's form
pseudonyms        pseudonyms of addresses, with keys that change each day
recent_failures   the messages that filters kept last
recent_messages   the last messages of each worker, in shared memory
facts             what happened in a session, as values
log_lines         log lines in proxsmtpd's form
session_lines     the way of log lines about sessions to the handler of the log
quoting           words of peers, servers and filters, which cannot look like another field
trace_id          the id of a session, unique over workers, reloads and restarts
metrics           what is measured: counters with labels, histograms
loop_lag          how late the event loops of the workers were
sessions          the sessions that run now, in shared memory
exposition        metrics as text for Prometheus
tls_outcomes      what can become of TLS in a session, for counters
last_error        the last error of the log
unreachable       servers that could not be reached lately
descriptor        a file descriptor that is closed with its owner
record_lock       a lock between processes
switches          numbers that the master sets for all workers: log level, traced clients
"""
