"""TLS as bytes and values: what can be decided without a TLS engine, sockets, DNS or a clock.

client_hello  the first message of a TLS client (RFC 8446 section 4.1.2): server name, ALPN, versions, ECH
facts         what is known of TLS on one leg: for the log line and the environment of filters
levels        what UpstreamTls demands of the server's leg: go on, go on in clear, or which reply refuses
policy        the table of Tls lines: which action a connection gets, before and after the client's hello

All readers take bytes in chunks of any size. Nothing here reads a key or decrypts.
"""
