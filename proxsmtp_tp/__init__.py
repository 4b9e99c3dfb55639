"""A transparent SMTP filtering proxy for gateways."""
