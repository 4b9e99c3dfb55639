"""The filters: what judges a message before the server gets it.

interface           the interface to the connection driver: Filter, FilterRun, FilterOwner
verdict             the verdicts: pass, reject, tempfail, discard
table               FilterType -> the filter, one row for each type

judging             the filtering of one message: the part that is the same for all filter types
limit               FilterProcesses: how many run at once, over all workers; further messages wait
places              which clients have a place, and which wait for one, in memory that all workers share
callbacks           methods that the event loop calls: an error in one ends the connection
clock               FilterTimeout: only the time of waiting for the filter counts
spool               the bytes of a message: in memory, in a file without a name, in the file that EMAIL names
spool_space         how much space all messages may take: SpoolLimit, a reserve on the disk, memory
ownership           which of those files belong to a running worker

command             FilterType pipe and file: a shell command for each message
run                 the common part of pipe and file
pipe                FilterType pipe: the message goes through standard input and output
file                FilterType file: the message is in the file that EMAIL names
launcher            what all runs of one command share: environment, limits, processes
plain_command       which commands need no shell
execution           how one command is executed: directly, or by /bin/sh
posix_spawn         posix_spawn(3) without the interpreter's lock
spawner             the thread that starts processes
process             one child process: pipes, exit status, the end of all processes that it started
watching            watches its descriptors
pipes               its pipes, before it has them
child_input         its standard input
other_groups        processes of a command that have left its process group
endings             every way in which a command can end, and the verdict for it
stderr              the last line of standard error: text and SMTP code of a refusal

smtp                FilterType smtp: a scanner that speaks SMTP; its replies are the verdict
scanner_dialogue    the SMTP dialogue with it, without a socket
scanner_connection  the connection to it
scanner_endings     every way in which it can end, and the verdict for it

chain               several filters in order: message stored, edits applied, one verdict
links               one filter of a chain with its settings: skip, oversize, failure, mode, places, pause
describing          what each filter says of itself, for check-filters
types               MemberType -> the filter, one row for each type
parts               what a type may need of its worker
member              the interface of one filter in a chain: a coroutine, its judgement, its failure
run_member          types pipe, file and smtp as members of a chain
shadowing           mode=shadow: judged after the reply, only logged
breaker             a pause after repeated failures, and its trial
time_limit          a time limit for a coroutine
queueing            a place of `max=` for a coroutine
quarantine          QuarantineDirectory and KeepRefused: whole entries, bounded
keeping             where a chain keeps messages: the interface of the quarantine
chain_endings       what a client gets where no filter gave the reply

mail                the message as edited before, made of pieces of stored texts
fields              the header as octets
edits               what a filter may change: values
editing             applies edits to a message and its envelope

streams             connections to servers that judge, with failover
asking              a question on a connection: time limits, ends, reading answers
milter              type milter
milter_connections  its connections, which wait for the next message of the same client
milter_facts        what a milter is told of a connection and a message
clamd               type clamd
spamd               type spamd
rspamd              type rspamd: HTTP
worker              type worker: a pool of processes that judge many messages
worker_process      one of them: ready, asked, ended
header_difference   two headers: the edits that make one of the other
new_text            a new body or message that a server returns
protocols           the protocols of milter, clamd, spamd, rspamd and worker, pure

hook                runs a command for some events, such as a lock; nobody waits for it
monitor             FilterMode monitor: a verdict that only the log gets

trial               one message before a filter, for try-filter

reject              FilterType reject: no process, only a reply
"""
