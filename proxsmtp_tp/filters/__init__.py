"""What may judge a message before the server sees it.

interface    what a filter is for the connection driver: Filter, FilterRun, FilterOwner
verdict      what a filter says: pass, reject, tempfail, discard
table        FilterType -> the filter that the configuration asks for

judging      one message being judged: what all kinds of filters do alike
limit        how many judge at once, over all workers; the others wait in line
places       who has a place and who waits for one, in memory that all workers share
clock        FilterTimeout: time counts only while we wait for the filter
spool        a message's bytes: in memory, in a nameless file, in the file that EMAIL names
room         how much all of them may take: SpoolLimit, a reserve on the disk, memory
claim        which of those files a killed worker left behind

command      FilterType pipe and file: a shell command for each message
endings      every way in which a command can end, and the verdict of each
stderr       what a refusing command said: its last line, its SMTP code
process      one child process: pipes, exit status, the end of all that it started
strays       processes that left its group, and not its session

smtp                FilterType smtp: a scanner that speaks SMTP, whose answers are the verdict
scanner_dialogue    what is said to it, without a socket
scanner_connection  its socket: dialled, written to, surely gone in the end
scanner_endings     every way in which it can end, and the verdict of each

reject       FilterType reject: no process, only a reply
"""
