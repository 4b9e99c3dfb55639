"""A transparent SMTP filtering proxy for gateways.

cli        the command lines: one module for each subcommand of proxsmtp-tp, and that of proxsmtpd 1.10
lab        sender, gateway and MX in network namespaces, for the demo and the tests
service    the daemon: master, workers, privileges, logs, status
net        sockets: accepts clients, connects to servers, and performs what the session decides
gateway    the rules of the host: installed, removed, checked and examined
session    the SMTP dialogue of one connection; pure
filters    what judges a message before the server gets it
certificates  own ones, those that our CA makes, and what the certificate of a server proves
smtp       SMTP as bytes and values; pure
tls        TLS as bytes and values: ClientHello, records, TLSA, the policy of TLS
telemetry  what the daemon counts
config     the configuration file
worker     for filters in Python: judge messages that the daemon gives to a process of a pool
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader

PURE = "PROXSMTP_TP_PURE"
"""The environment variable that has Python run the sources of a compiled installation, to debug it."""


def _only_sources(path: str) -> FileFinder:
    """For sys.path_hooks: in the folders of this package, find no extension module."""
    if not f"{path}/".startswith(f"{os.path.dirname(__file__)}/"):  # noqa: PTH120  (pathlib would cost each start 5 ms)
        raise ImportError(path)
    return FileFinder(path, (SourceFileLoader, SOURCE_SUFFIXES))


if os.environ.get(PURE):
    sys.path_hooks.insert(0, _only_sources)
