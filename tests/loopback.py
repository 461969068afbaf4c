"""No way out of this process but loopback."""

import ipaddress
import socket
from typing import Any

import pytest


def stay_on_loopback(patch: pytest.MonkeyPatch) -> None:
    """From now on a connection to anywhere else raises AssertionError where it is tried."""
    connect = socket.socket.connect

    def checked(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else "127.0.0.1"
        if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            raise AssertionError(f"a test reached for {host!r}; tests stay on loopback")
        connect(self, address)

    patch.setattr(socket.socket, "connect", checked)
