"""Which addresses belong to the public internet: the law that keeps a fleet from being sent to its own insides.

The standard library's `is_private` and `is_global` are wrong for a third of the special-purpose blocks, so the lists
are our own (IANA IPv4 and IPv6 Special-Purpose Address Registries). What is not known to be public is not public.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_SPECIAL_4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network; most systems take 0.0.0.0 for themselves
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by the customers of a provider; some clouds keep their metadata here
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's platform inside every one of its networks, though the block is public
        "169.254.0.0/16",  # link-local, and the metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; a cloud's metadata
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays, withdrawn
        "192.168.0.0/16",
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_UNICAST_6 = IPv6Network("2000::/3")
"""All of IPv6 that is given out for the internet; loopback, unique local, link-local and multicast lie outside."""
_SPECIAL_6 = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID …
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, withdrawn: it wraps any IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3ffe::/16",  # 6bone, given back
        "3fff::/20",  # documentation
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052: a network without IPv4 reaches public IPv4 addresses through these."""
_NOWHERE = tuple(IPv4Network(block) for block in ("0.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32"))


def plain(text: str) -> Address | None:
    """The address that a connection to `text` goes to; None where it is none, or one of a link (`fe80::1%eth0`).

    An IPv4 address that is mapped into IPv6 is that IPv4 address.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return None if address.scope_id else address.ipv4_mapped or address
    return address


def public(address: Address) -> bool:
    """Whether it is one host of the public internet."""
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _SPECIAL_4)
    if address in _NAT64:
        return public(IPv4Address(int(address) & 0xFFFF_FFFF))
    return address in _UNICAST_6 and not any(address in block for block in _SPECIAL_6)


def one_host(address: Address) -> bool:
    """False for what no setting may allow: groups of hosts, and the address that means "myself"."""
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _NOWHERE)
    return not (address.is_unspecified or address.is_multicast)
