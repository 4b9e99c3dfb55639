"""The directives of TLS: what a connection gets, what the server must have, certificates and limits."""

from __future__ import annotations

from proxsmtp_tp.config import values
from proxsmtp_tp.config.directives.directive import Directive
from proxsmtp_tp.config.settings import TlsDane, TlsRejected

TLS: tuple[Directive, ...] = (
    Directive(
        "Tls",
        "tls",
        values.TLS,
        "What is done when a client asks for TLS. terminate: the daemon has TLS with the client and with the server,"
        " and messages are judged. pass: the client has TLS with the server itself; the daemon relays what it cannot"
        " read, and nothing is judged. strip: STARTTLS is removed, as proxsmtpd 1.10 does, and mail crosses the"
        " network in clear; on the submission ports 465 and 587 only with the word submission after it. refuse: the"
        " client gets no TLS, and an error in its place. Conditions client=, server= (networks), port= (of the server)"
        " and name= (the server name in the client's hello: mx.example, *.example, or none) have values that are"
        " separated by commas. The first line that fits counts; the last one must have no condition. docs/tls.md"
        " explains what each action breaks.",
        since="2.1",
        default_text="STARTTLS is removed, as in 1.10",
    ),
    Directive(
        "UpstreamTls",
        "upstream_tls",
        values.UPSTREAM_TLS,
        "What the daemon's connection to the server must have; otherwise clients get 451. may: nothing; encrypt: TLS"
        " with any certificate; dane: what the server's TLSA records say (may, if there are none); verify: a"
        " certificate of a trusted CA for the name in the client's hello, or in match=; secure: the same, for a name"
        " in match= only. A client with TLS makes it at least encrypt. The mail of a client in clear is encrypted,"
        " too, with encrypt, verify and secure, and with dane if sni= names the server; otherwise dane means may for"
        " such a client. Conditions server= and port= as in Tls; sni= is the name to ask for if the client gave none."
        " The first line that fits counts. Needs a Tls line.",
        since="2.1",
        default_text="may, and encrypt for clients with TLS",
    ),
    Directive(
        "UpstreamCaFile",
        "upstream_ca_file",
        values.PATH,
        "The certificates (PEM) of the CAs that may sign a server's certificate, in place of those of the system.",
        since="2.1",
        default_text="the CAs that OpenSSL trusts on this host",
    ),
    Directive(
        "TlsCertificate",
        "tls_certificate",
        values.TLS_CERTIFICATE,
        "The certificate, with its chain, and its key (PEM), that clients of these servers get with the action"
        " terminate. An inbound gateway has the certificate of its mail server here. The first line that fits the"
        " server counts.",
        since="2.1",
        default_text="a certificate that TlsCa signs",
    ),
    Directive(
        "TlsCa",
        "tls_ca",
        values.KEY_PAIR,
        "Certificate and key (PEM) of the CA that signs the certificates which clients get with the action terminate,"
        " where no TlsCertificate fits and the server's own certificate was verified. Clients must trust it.",
        since="2.1",
        default_text="made at the first start, in the state directory",
    ),
    Directive(
        "TlsUntrustedCa",
        "tls_untrusted_ca",
        values.KEY_PAIR,
        "The same for servers whose certificate was not verified. No client may trust this CA: a client that verifies"
        " certificates then fails, as it would without this gateway, and one that does not verify still has TLS.",
        since="2.1",
        default_text="made at the first start, in the state directory",
    ),
    Directive(
        "TlsDane",
        "tls_dane",
        values.choice(TlsDane),
        "What the action terminate does where the server name in the client's hello has TLSA records that DNSSEC"
        " secures, and is the name of this server: a client that compares them accepts no certificate but the server's"
        " own, or a TlsCertificate that the records name; with such a TlsCertificate the connection is terminated in"
        " any case. pass: the connection passes unjudged. refuse: it is refused. terminate: such a client cannot send.",
        since="2.1",
    ),
    Directive(
        "TlsRejected",
        "tls_rejected",
        values.choice(TlsRejected),
        "What the action terminate does with a client that rejects the certificate which it gets: by an alert, or by"
        " leaving right after the handshake. fail: it cannot send. pass: for TlsRejectedTimeOut its connections to"
        " this server, with this server name in its hello, pass unjudged, beginning with the next one. A client that"
        " rejects on purpose is then not judged.",
        since="2.1",
    ),
    Directive(
        "TlsRejectedTimeOut",
        "tls_rejected_time_out",
        values.SECONDS,
        "How long such connections pass; a reload ends it. The default is longer than the pauses between a mail"
        " server's first attempts. Afterwards the next attempt fails once more.",
        since="2.1",
    ),
    Directive(
        "TlsWrapped",
        "tls_wrapped",
        values.PORTS,
        "Ports of servers where TLS begins with the first octet (RFC 8314: 465), in place of STARTTLS. Needs a Tls"
        " line.",
        since="2.1",
    ),
    Directive(
        "TlsHandshakes",
        "tls_handshakes",
        values.integer(0, 100_000),
        "How many TLS handshakes run at once in one worker; 0 means no limit. Above it STARTTLS gets 421, and a client"
        " on a port of TlsWrapped gets an alert. The connection ends, so that no client goes on in clear.",
        since="2.1",
    ),
    Directive(
        "TlsClientHandshakes",
        "tls_client_handshakes",
        values.integer(0, 100_000),
        "How many TLS handshakes of one client (an IPv4 address, or an IPv6 /64) run at once in one worker; 0 means no"
        " limit.",
        since="2.1",
    ),
    Directive(
        "TlsHandshakeTimeOut",
        "tls_handshake_time_out",
        values.SECONDS,
        "How long the handshakes of one connection may take, from STARTTLS on.",
        since="2.1",
    ),
    Directive(
        "TlsPassIdleTimeOut",
        "tls_pass_idle_time_out",
        values.SECONDS,
        "How long a connection that passes may be silent in both directions. The default is longer than the ten"
        " minutes that a client waits for the reply to a message (RFC 5321 section 4.5.3.2.6).",
        since="2.1",
    ),
    Directive(
        "TlsPassTimeOut",
        "tls_pass_time_out",
        values.SECONDS,
        "How long a connection that passes may last.",
        since="2.1",
    ),
)
