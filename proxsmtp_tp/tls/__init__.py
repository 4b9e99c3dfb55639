"""TLS as bytes and values: what can be decided without a TLS engine, sockets, DNS or a clock.

alerts        TLS alerts (RFC 8446 section 6): what one of a peer means, and those that we send ourselves
client_hello  the first message of a TLS client (RFC 8446 section 4.1.2): server name, ALPN, versions, ECH
der           the elements of a certificate's encoding
facts         what is known of TLS on one leg: for the log line and the environment of filters
levels        what UpstreamTls demands of the server's leg: go on, go on in clear, or which reply refuses
policy        the table of Tls lines: which action a connection gets, before and after the client's hello
records       checks that a passed connection has TLS records only, in both directions (RFC 8446 section 5.1)
tlsa          compares TLSA records with a server's certificates (RFC 6698, RFC 7671)

All readers take bytes in chunks of any size. Nothing here reads a key or decrypts.
"""
