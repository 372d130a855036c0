"""Addresses to listen on."""

import socket


def free_port(host: str) -> int:
    """Return a free port of this machine.

    Raises:
        OSError: the address is not this machine's.
    """
    with socket.create_server((host, 0), family=_family(host)) as found:
        return int(found.getsockname()[1])


def check_address(host: str, port: int) -> None:
    """Refuse a taken port, which the server would share with its owner.

    Raises:
        OSError: the port is taken, or the address is not this machine's.
    """
    with socket.create_server((host, port), family=_family(host)):
        pass


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
