"""SMTP replies: parsed from a server, built by us, encoded for a client (RFC 5321 section 4.2)."""
