"""Which addresses count as public. Nothing is connected to."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from faster_smolvlm.media.addresses import is_public
from hypothesis import given
from hypothesis import strategies as st


def _words(text: str) -> list[str]:
    return text.split()


# IANA's registries of special-purpose addresses, multicast, and what clouds use for themselves.
SPECIAL_V4 = _words(
    """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
    192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
    255.255.255.255/32 168.63.129.16/32 169.254.169.254/32 100.100.100.200/32 192.0.0.192/32
    """
)
SPECIAL_V6 = _words(
    """
    ::/128 ::1/128 ::/96 ::ffff:0:0:0/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32
    2001:2::/48 2001:10::/28 2001:20::/28 2001:db8::/32 3fff::/20 4000::/3 5f00::/16 fc00::/7
    fd00:ec2::254/128 fd20:ce::254/128 fe80::/10 fec0::/10 ff00::/8 e000::/4
    """
)
PUBLIC_V4 = _words(
    """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 93.184.216.34 100.63.255.255 100.128.0.0 126.255.255.255
    168.63.129.15 168.63.129.17 169.253.255.255 172.15.255.255 172.32.0.0 192.0.1.0 192.88.98.255
    192.167.255.255 198.17.255.255 198.20.0.0 223.255.255.255
    """
)
PUBLIC_V6 = _words(
    """
    2001:200:: 2001:4860:4860::8888 2001:db7:ffff::1 2001:db9::1 2003:: 2606:4700:4700::1111 2a00:1450::1
    3ffe:ffff::1 3fff:1000::
    """
)


def carriers(inner: IPv4Address) -> list[IPv6Address]:
    """IPv6 addresses that lead to an IPv4 address and count as it does: mapped, NAT64, 6to4 and two of ISATAP."""
    value = int(inner)
    return [
        IPv6Address((0xFFFF << 32) | value),
        IPv6Address((0x64FF9B << 96) | value),
        IPv6Address((0x2002 << 112) | (value << 80) | 1),
        IPv6Address((0x2A00_1450 << 96) | (0x0000_5EFE << 32) | value),
        IPv6Address((0x2A00_1450 << 96) | (0x0200_5EFE << 32) | value),
    ]


@pytest.mark.parametrize("network", SPECIAL_V4)
def test_special_ipv4(network: str) -> None:
    found = IPv4Network(network)
    for address in (found[0], found[-1], found[found.num_addresses // 2]):
        assert not is_public(address)
        assert not is_public(str(address))
        for carrier in carriers(address):
            assert not is_public(carrier), carrier


@pytest.mark.parametrize("network", SPECIAL_V6)
def test_special_ipv6(network: str) -> None:
    found = IPv6Network(network)
    for address in (found[0], found[-1], found[found.num_addresses // 2]):
        assert not is_public(address)
        assert not is_public(f"{address}%eth0")


@pytest.mark.parametrize("address", [*PUBLIC_V4, *PUBLIC_V6])
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", PUBLIC_V4)
def test_carriers_of_public_addresses(address: str) -> None:
    assert all(map(is_public, carriers(IPv4Address(address))))


@pytest.mark.parametrize(
    "address",
    [
        "::10.0.0.1",  # IPv4-compatible, given up
        "::8.8.8.8",
        "::ffff:0:8.8.8.8",  # SIIT
        "64:ff9b:1::8.8.8.8",  # NAT64 of a site
        "2001:0:808:808::1",  # Teredo
        "2002:0808:0808::5efe:10.0.0.1",  # both inside: one of them public
        "2002:0a00:0001::5efe:8.8.8.8",
        "fe80::5efe:8.8.8.8",
        "fe80::1%25eth0",
    ],
)
def test_what_looks_public_inside(address: str) -> None:
    assert not is_public(address)


@given(st.integers(0, 2**32 - 1))
def test_carriers_count_as_what_they_carry(value: int) -> None:
    address = IPv4Address(value)
    expected = not any(address in IPv4Network(network) for network in [*SPECIAL_V4, "161.26.0.0/16", "166.8.0.0/14"])
    assert is_public(address) == expected
    assert all(is_public(carrier) == expected for carrier in carriers(address))


@given(st.integers(0, 2**128 - 1))
def test_public_ipv6_is_global_unicast(value: int) -> None:
    address = IPv6Address(value)
    if any(address in IPv6Network(network) for network in SPECIAL_V6):
        assert not is_public(address)
    elif is_public(address):
        in_use = ("2000::/3", "64:ff9b::/96", "::ffff:0:0/96")
        assert any(address in IPv6Network(network) for network in in_use)


def test_what_is_no_address() -> None:
    for text in ("", "example.com", "1.2.3", "0x7f.1", "2130706433"):
        with pytest.raises(ValueError, match="does not appear to be"):
            is_public(text)
