"""Addresses to listen on."""

import os
import socket
from errno import EADDRINUSE

from backchannel.schemas.errors import BackchannelError


class AddressError(BackchannelError, RuntimeError):
    """The port is taken, or the address is not this machine's; the message names the options."""


def free_port(host: str) -> int:
    """Return a free port of this machine; raises what `check_address` raises."""
    return _bound(host, 0)


def check_address(host: str, port: int) -> None:
    """Refuse a taken port, which the server would share with its owner.

    Raises:
        AddressError: the port is taken, or the address is not this machine's.
    """
    _bound(host, port)


def _bound(host: str, port: int) -> int:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as found:
            return int(found.getsockname()[1])
    except socket.gaierror as error:
        raise AddressError(f"--host {host}: {error.strerror}") from None
    except OSError as error:
        remedy = "; choose another one, 0 takes any that is free" if error.errno == EADDRINUSE else ""
        raise AddressError(f"--host {host} --port {port}: {os.strerror(error.errno or 0)}{remedy}") from None
