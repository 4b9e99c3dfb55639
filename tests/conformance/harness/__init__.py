"""Plays one byte script against proxsmtpd 1.10 and against ours.

    script    case files -> values: `Case`, `Step`
    daemon    one daemon, started in the foreground with its own directory, port and log
    player    one case on one daemon: a client, a server, what the filter recorded
    parallel  many cases on many daemons at once

How a case is written: ../cases/README.md.
"""
