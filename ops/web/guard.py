"""Checks of callers that all servers share: loopback addresses, and secrets."""

import hmac
from functools import lru_cache
from ipaddress import ip_address


@lru_cache(1024)
def is_loopback(host: str) -> bool:
    """Return whether `host` is an address that only this machine can reach."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_of(header: str) -> str:
    """Return the name in a Host header, without the port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


def same(one: str, other: str) -> bool:
    """Compare secrets in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())


def bearer(authorization: str) -> str:
    """Return the bearer token in an Authorization header; empty if there is none."""
    scheme, _, token = authorization.partition(" ")
    return token if scheme.lower() == "bearer" else ""
