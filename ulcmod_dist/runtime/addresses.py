"""Addresses of schedulers: whether anything listens there, asked before a library waits for it."""

import socket
from urllib.parse import urlsplit

CONNECT_TIMEOUT = 5.0  # seconds for a TCP connection, to a machine on the same network or not


def explain_no_answer(address: str, default_port: int | None = None) -> str | None:
    """Say why no TCP connection to an address can be made; None if one can.

    The address is ``host:port``, with or without a scheme. Libraries retry such a connection for
    half a minute and more (Dask 30 s, Ray 120 s), and then report a time-out without the reason.

    Raises:
        ValueError: The address names no host or no port, or the port is no number.
    """
    parts = urlsplit(address if "://" in address else f"//{address}")
    port = parts.port or default_port
    if not parts.hostname or port is None:
        raise ValueError(f"{address} is not of the form host:port")
    try:
        socket.create_connection((parts.hostname, port), CONNECT_TIMEOUT).close()
    except (OSError, UnicodeError) as error:
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
    return None
