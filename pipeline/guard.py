"""The URL guard: a URL that a stranger sent leads to a public host, or nowhere.

One strict parser takes it apart, and whatever is sent is put together again from the parts, so that no two programs can
read it differently. The host is resolved once; if *any* of its addresses is not public, all are refused. What comes
back are addresses, and those alone may be connected to: a name that resolves otherwise a moment later changes nothing.
How a host is written (`127.1`, `0x7f000001`, full-width digits) does not matter: only what the resolver makes of it.

Every hop of a redirect is a new URL and passes here again.
"""

from __future__ import annotations

import re
import socket
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from urllib.parse import quote, urljoin

from pipeline.addresses import Address, Network, one_host, plain, public
from pipeline.document import public_url
from pipeline.errors import PipelineError

Resolver = Callable[[str, int], Sequence[str]]
"""Addresses of a host, as text. Raises `OSError`."""

USUAL_PORTS = (80, 443, 8080, 8443)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_URL = 8192
_SHOWN = 100
"""Characters that are shown of one that is too long."""

_URL = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:@%]+))(?::([0-9]{1,5}))?")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_KEPT = "/%:@!$&'()*+,;=~-._[]|"
"""What stays as it is in a path; a signature over the URL must stay right."""


@dataclass(frozen=True, kw_only=True)
class WebUrl:
    """A URL, taken apart. Nothing in it is as it came: every part was checked and written anew."""

    scheme: str
    host: str
    """In lower case and ASCII; an IPv6 address without brackets."""
    port: int
    target: str
    """Path and query, as they stand in the request."""

    @property
    def authority(self) -> str:
        """Of the `Host` header: the port only where it is not the scheme's."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a URL leads: connect to one of these addresses, and ask no resolver again."""

    url: WebUrl
    addresses: tuple[str, ...]
    shown: str
    """The URL that was asked for at first, without what may be a secret: every error names this one."""


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What a fleet's owner allows beyond the public internet."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()
    """Names that may resolve to any address."""

    @classmethod
    def of(cls, text: str) -> Allowance:
        """From `10.0.0.0/8, media.internal`. Raises `ValueError`."""
        networks, hosts = [], set()
        words = [word.strip() for word in text.split(",") if word.strip()]
        for number, word in enumerate(words, start=1):
            if (network := _network(word)) is not None:
                networks.append(network)
            elif _HOST.fullmatch(word.lower()):
                hosts.add(word.lower())
            else:
                raise ValueError(f"entry {number} is neither a network (10.0.0.0/8) nor the name of a host")
        return cls(networks=tuple(networks), hosts=frozenset(hosts))

    def admits(self, host: str, address: Address) -> bool:
        return one_host(address) and (
            public(address) or host in self.hosts or any(address in network for network in self.networks)
        )


def _network(word: str) -> Network | None:
    with suppress(ValueError):  # whose words would show it all, and it may be a URL with a password
        return ip_network(word) if "/" in word or plain(word) is not None else None
    return None


NOTHING_MORE = Allowance()


def ports_of(text: str) -> tuple[int, ...] | None:
    """From `80, 443`; None from `any`. Raises `ValueError`."""
    if text.strip() == "any":
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 0 < int(word) < 65536 for word in words):
        raise ValueError("ports are numbers with commas between them, or `any`")
    return tuple(map(int, words))


def system_resolver(host: str, port: int) -> Sequence[str]:
    """What this machine's resolver says."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Says where a URL may lead."""

    allow: Allowance = NOTHING_MORE
    ports: Sequence[int] | None = USUAL_PORTS
    """None: any."""
    resolve: Resolver = system_resolver

    def place(self, url: str) -> Place:
        """Where `url` leads. Raises `source_forbidden`, `media_url_not_accessible` (there is no such host) and
        `source_unavailable` (the resolver does not answer)."""
        return self._place(url, public_url(url))

    def redirected(self, place: Place, location: str) -> Place:
        """Where a redirect from `place` leads. Raises what `place` raises."""
        try:
            if _unprintable(location):
                raise ValueError
            return self._place(urljoin(place.url.url, location), place.shown)
        except ValueError:
            raise _forbidden(place.shown, "it redirects to what is no URL") from None

    def _place(self, url: str, shown: str) -> Place:
        parsed = _parsed(url, shown)
        if self.ports is not None and parsed.port not in self.ports:
            raise _forbidden(shown, f"the port {parsed.port} is not allowed")
        found = self._resolved(parsed, shown)
        addresses = [plain(text) for text in found]
        if not all(address is not None and self.allow.admits(parsed.host, address) for address in addresses):
            # Which address it is stays here: it would tell a stranger of the network inside.
            raise _forbidden(shown, "its host is not a public one", log=f"{parsed.host} is at {', '.join(found)}")
        return Place(url=parsed, addresses=tuple(map(str, addresses)), shown=shown)

    def _resolved(self, parsed: WebUrl, shown: str) -> Sequence[str]:
        unheard = "its host cannot be looked up"
        try:
            found = self.resolve(parsed.host, parsed.port)
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise PipelineError("source_unavailable", url=shown, reason=unheard, log=str(error)) from error
            found = ()
        except (OSError, UnicodeError) as error:
            raise PipelineError("source_unavailable", url=shown, reason=unheard, log=str(error)) from error
        if not found:
            raise PipelineError("media_url_not_accessible", url=shown, reason="there is no such host")
        return found


def parse(url: str) -> WebUrl:
    """Take a URL apart. Raises `source_forbidden`: what two parsers might read differently is not read at all."""
    return _parsed(url, public_url(url))


def _parsed(url: str, shown: str) -> WebUrl:
    if len(url) > _MAX_URL:
        raise _forbidden(shown[:_SHOWN], f"the URL is longer than {_MAX_URL} characters")
    if _unprintable(url):
        raise _forbidden(shown, "the URL has a space, a backslash or a control character in it")
    if url.partition(":")[0].lower() not in _DEFAULT_PORTS:
        raise _forbidden(shown, "only http and https are read")
    match = _URL.fullmatch(url)
    if match is None:
        raise _forbidden(shown, "it is not a whole URL")
    scheme, authority, path, query = match[1].lower(), match[2], match[3], match[4] or ""
    if "@" in authority:
        raise _forbidden(shown, "the URL has a user or a password in it")
    parts = _host_and_port(authority, _DEFAULT_PORTS[scheme])
    if parts is None:
        raise _forbidden(shown, "its host or port is not valid")
    target = quote(path or "/", safe=_KEPT) + quote(query, safe=_KEPT + "?")
    return WebUrl(scheme=scheme, host=parts[0], port=parts[1], target=target)


def _host_and_port(authority: str, usual: int) -> tuple[str, int] | None:
    match = _AUTHORITY.fullmatch(authority)
    host = _host(match[1], match[2]) if match else None
    port = int(match[3]) if match and match[3] else usual
    return (host, port) if host is not None and 0 < port < 65536 else None


def _host(literal: str | None, name: str | None) -> str | None:
    """The host in the one form that we use; None where it is none."""
    if literal is not None:
        address = plain(literal)
        return str(ip_address(literal)) if address is not None and ":" in literal else None
    try:
        host = str(name).removesuffix(".").encode("idna").decode().lower()
    except UnicodeError:
        return None
    return host if _HOST.fullmatch(host) and len(host) <= 253 else None


def _unprintable(text: str) -> bool:
    """A backslash, or any character that stands for no mark on paper: space, control, half of a pair."""
    return any(char == "\\" or unicodedata.category(char) in _NO_MARKS for char in text)


_NO_MARKS = {"Cc", "Cs", "Zs", "Zl", "Zp"}


def _forbidden(shown: str, reason: str, *, log: str | None = None) -> PipelineError:
    return PipelineError("source_forbidden", url=shown, reason=reason, log=log)
