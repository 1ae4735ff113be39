"""What a host's name or address says of where it is."""

from ipaddress import ip_address


def is_this_machine(host: str) -> bool:
    """Whether a name or an address, in brackets or not, is that of this machine to itself."""
    try:
        return host.lower() == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
