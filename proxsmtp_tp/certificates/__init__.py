"""Certificates: own ones, those that our CA makes, and what the certificate of a server proves.

examining   what the certificate of a server proves: a path to a CA, a name, a TLSA record
path_check  OpenSSL's check of a certificate chain, without a connection
authority   the CA and the untrusted CA: made, stored, read
leaf        makes the certificate that a client sees
names       the names in a certificate
pem         certificates and keys in PEM
requests    what a worker asks of the minting process, and its answers
material    a certificate chain with its key, and the errors
libraries   the optional libraries of the extra `tls`, and what to install where they are missing

A leaf of the CA that clients trust is made only for a server that was verified. The key of a CA is read by the minting
process only (`service.minting`).
"""
