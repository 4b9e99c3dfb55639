"""The directives of the configuration file: each one is described here and nowhere else.

table      DIRECTIVES: all of them, in the order of documentation; and by name
directive  the description of one directive
filters    FilterCommand, the filter chain (Filter), quarantine, Header, KeepAlives
clients    Listen, MaxConnections, Clients; the limits of a client (Client...) and its locks (Lock...)
sessions   OutAddress, TransparentProxy, time and size limits, User, XCLIENT and XFORWARD
tls        Tls, UpstreamTls, certificates and CAs, limits of handshakes and of connections that pass
daemon     PidFile, logging, Workers, Instance
rules      interception (Rule...)

The reader takes names and kinds from here; `config.settings.Settings` holds the defaults. The man page, the Ansible
tables and `check-config` are made from these rows. A new directive is one row here and one field in `Settings`.
"""
