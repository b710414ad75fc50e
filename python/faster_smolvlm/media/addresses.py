"""Which addresses are public: a table of our own, so that the answer is the same with every version of Python.

The tables follow the special-purpose registries of IANA for IPv4 and IPv6. An address is public only if every IPv4
address that it carries inside is public too, since a gateway may connect to that one.
"""

from __future__ import annotations

import ipaddress
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_SPECIAL_V4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by a provider's customers; 100.100.100.200 serves metadata at Alibaba
            "127.0.0.0/8",  # loopback
            "161.26.0.0/16",  # services that IBM Cloud shows its own machines only
            "166.8.0.0/14",  # the same
            "168.63.129.16/32",  # the host of a virtual machine at Azure
            "169.254.0.0/16",  # link-local; 169.254.169.254 serves metadata in most clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments, with anycast to the next gateway; 192.0.0.192 at Oracle
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # relays of 6to4, given up
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, with the broadcast address
        ),
    )
)

# Nothing else of IPv6 is handed out for the public: not fc00::/7, fe80::/10, fec0::/10, ff00::/8, 100::/64,
# 64:ff9b:1::/48, 5f00::/16, ::/96 or ::ffff:0:0:0/96.
_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID, anycast to the next gateway
            "2001:db8::/32",  # documentation
            "3fff::/20",  # documentation
        ),
    )
)
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_6TO4 = ipaddress.IPv6Network("2002::/16")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)  # the upper half of the interface identifier; the lower half is an IPv4 address


def is_public(address: str | Address) -> bool:
    """Whether an IPv4 or IPv6 address, in text perhaps with a zone (``fe80::1%eth0``), belongs to the public internet.

    Raises ValueError for text that is no address.
    """
    if isinstance(address, str):
        address = ipaddress.ip_address(address.split("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    if address in _MAPPED or address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    if address not in _UNICAST_V6 or any(address in network for network in _SPECIAL_V6):
        return False
    return all(map(is_public, _carried(int(address), address)))


def _carried(value: int, address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """Return the IPv4 addresses inside an IPv6 address that a tunnel would connect to."""
    found = []
    if address in _6TO4:
        found.append(ipaddress.IPv4Address(value >> 80 & 0xFFFF_FFFF))
    if value >> 32 & 0xFFFF_FFFF in _ISATAP:
        found.append(ipaddress.IPv4Address(value & 0xFFFF_FFFF))
    return found
