"""Addresses to listen on."""

import os
import socket
from errno import EADDRINUSE

from backchannel.schemas.errors import BackchannelError


class AddressError(BackchannelError, RuntimeError):
    """The port is taken, or the address is not this machine's; the message names the options."""


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens there; 0 takes any port that is free.

    Raises:
        AddressError: the port is taken, or the address is not this machine's.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except socket.gaierror as error:
        raise AddressError(f"--host {host}: {error.strerror}") from None
    except OSError as error:
        remedy = "; choose another one, 0 takes any that is free" if error.errno == EADDRINUSE else ""
        raise AddressError(f"--host {host} --port {port}: {os.strerror(error.errno or 0)}{remedy}") from None


def free_port(host: str) -> int:
    """Return a free port of this machine; raises what `bound` raises."""
    with bound(host, 0) as found:
        return int(found.getsockname()[1])


def check_address(host: str, port: int) -> None:
    """Refuse a taken port, which a server of many processes would share with its owner; raises what `bound` raises."""
    bound(host, port).close()
