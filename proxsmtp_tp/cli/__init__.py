"""What people type. `main` is proxsmtp-tp and dispatches to one module for each subcommand; `proxsmtpd` is
the command line of proxsmtpd 1.10.

A module for subcommands has `register(subparsers)`, which adds its parsers with `func` set to its `run(args)
-> int`. Exit codes: 0 done, 1 it did not work, 2 usage or configuration.
"""
