"""The URL guard admits no way inside, in whatever form it comes, and lets through what any browser would open.

The resolver is under the test's control. Where a vector could reach this machine, a listener counts who came: nobody.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from ipaddress import ip_address

import pytest
from web_server import Answer, Request, Web, running_web

from pipeline import addresses, download
from pipeline.errors import PipelineError
from pipeline.guard import Allowance, Guard, parse, ports_of

PUBLIC = "93.184.215.14"
PUBLIC_6 = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"

INSIDE_4 = [
    *("0.0.0.0", "0.0.0.1", "0.255.255.255", "10.0.0.0", "10.1.2.3", "10.255.255.255", "100.64.0.1", "100.100.100.200"),
    *("100.127.255.255", "127.0.0.1", "127.0.0.2", "127.1.2.3", "127.255.255.255", "168.63.129.16", "169.254.0.1"),
    *("169.254.169.254", "169.254.170.2", "172.16.0.1", "172.20.10.2", "172.31.255.255", "192.0.0.1", "192.0.0.8"),
    *("192.0.0.9", "192.0.0.10", "192.0.0.170", "192.0.0.192", "192.0.2.1", "192.31.196.1", "192.52.193.1"),
    *("192.88.99.1", "192.168.0.1", "192.168.255.255", "192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1"),
    *("203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.254", "255.255.255.255"),
]
INSIDE_6 = [
    *("::", "::1", "::2", "::ffff:0:127.0.0.1", "::127.0.0.1", "::7f00:1", "::93.184.215.14", "64:ff9b::127.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::1", "64:ff9b:1::127.0.0.1"),
    *("100::1", "100:0:0:1::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:1::1", "2001:2::1"),
    *("2001:3::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:a00:1::1", "2002:5db8:d70e::1"),
    *("2620:4f:8000::1", "3ffe::1", "3fff::1", "5f00::1", "fc00::1", "fd00::1", "fd00:ec2::254", "fe80::1"),
    *("fe80::1%eth0", "fe80::1%1", "fec0::1", "ff00::1", "ff02::1", "ff0e::1", "::ffff:0.0.0.0", "::ffff:127.0.0.1"),
    *("::ffff:7f00:1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:192.168.0.1", "::ffff:100.64.0.1"),
]
SPELT = [  # what a resolver makes an address of loopback or of a cloud's metadata of
    *("2130706433", "0x7f000001", "0x7F.0x0.0x0.0x1", "017700000001", "0177.0.0.1", "0177.0.0.01", "127.1", "127.0.1"),
    *(
        "0x7f.1",
        "127.0.0.1.",
        "0",
        "0x0",
        "0.0.0.0",
        "00",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
    ),
    *("127.0.0.1", "127.0.0.1", "127。0。0。1", "①②⑦.⓪.⓪.①", "ⓛocalhost", "localhost", "LOCALHOST"),
    *("localhost.", "localhost.localdomain", "metadata.google.internal", "127.0.0.1.nip.io", "a.b.c.localtest.me"),
]
LITERALS = ["[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[64:ff9b::7f00:1]"]
LITERALS += ["[fe80::1]", "[fd00:ec2::254]", "[::127.0.0.1]", "[0000:0000:0000:0000:0000:0000:0000:0001]"]
TRICKS = [  # what two parsers read differently, or what is no http(s) URL
    "",
    " ",
    "http",
    "http:",
    "http:/",
    "http://",
    "http:///",
    "http:///film.mp4",
    "http:films.example/film.mp4",
    "http:/films.example/film.mp4",
    "//films.example/film.mp4",
    "films.example/film.mp4",
    "http//films.example",
    "http://:80/",
    "http://?",
    "http://#",
    " http://films.example/",
    "http://films.example/ ",
    "http://films.example/a b",
    "http://films.example/a\tb",
    "http://films.example\t/",
    "http://films.example/a\r\nHost: inside",
    "http://films.example/a\nb",
    "http://films.example/\0",
    "http://films.example\0.inside/",
    "http://films.example/\x7f",
    "http://films.example/\u2028",
    "http://films.example/\u00a0",
    "http://films.example/\u3000",
    "http://films.example/\ud800",
    "http://films.example\\@127.0.0.1/",
    "http://127.0.0.1\\@films.example/",
    "http:\\\\127.0.0.1\\",
    "http://films.example/\\",
    "http://user@films.example/",
    "http://user:password@films.example/",
    "http://:password@films.example/",
    "http://@films.example/",
    "http://127.0.0.1@films.example/",
    "http://films.example@127.0.0.1/",
    "http://films.example:80@127.0.0.1/",
    "http://films.example%40127.0.0.1/",
    "http://films.example%2f@127.0.0.1/",
    "http://127.0.0.1%23@films.example/",
    "http://127.0.0.1%00.films.example/",
    "http://%31%32%37.0.0.1/",
    "http://films.example:/",
    "http://films.example:0/",
    "http://films.example:65536/",
    "http://films.example:99999/",
    "http://films.example:-1/",
    "http://films.example:+80/",
    "http://films.example:80:80/",
    "http://films.example:８０/",
    "http://films.example:80a/",
    "http://films.example:0x50/",
    "http://[::1/",
    "http://::1/",
    "http://::1]/",
    "http://[::1]films.example/",
    "http://films.example[::1]/",
    "http://[films.example]/",
    "http://[127.0.0.1]/",
    "http://[::1%25eth0]/",
    "http://[fe80::1%eth0]/",
    "http://[v1.films]/",
    "http://.films.example/",
    "http://films..example/",
    "http://films.example../",
    "http://-films.example/",
    "http://films-.example/",
    "http://films.exa mple/",
    "http://films.exa^mple/",
    "http://films.exa<mple/",
    "http://films.exa|mple/",
    "http://films!example/",
    "http://films℀example/",
    "http://films／example/",
    "http://films＠127.0.0.1/",
    "http://films：80/",
    "http://" + "a" * 64 + ".example/",
    "http://" + "a." * 130 + "example/",
    "http://films.example/" + "a" * 9000,
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "ftp://films.example/film.mp4",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "dict://127.0.0.1:6379/info",
    "data:video/mp4;base64,AAAA",
    "javascript:alert(1)",
    "jar:http://films.example!/film",
    "ldap://films.example/",
    "rtmp://films.example/live",
    "rtsp://films.example/live",
    "ws://films.example/",
    "view-source:http://films.example/",
    "url:http://127.0.0.1/",
    "httpx://films.example/",
    "http+unix://%2fvar%2frun%2fdocker.sock/",
    "concat:http://films.example/",
]
PORTS = [1, 21, 22, 23, 25, 110, 2375, 3306, 5432, 6379, 9200, 10250, 11211, 65535]
LEGITIMATE = [
    ("http://films.example", "/"),
    ("http://films.example/", "/"),
    ("https://films.example/film.mp4", "/film.mp4"),
    ("HTTPS://FILMS.Example/Film.MP4", "/Film.MP4"),
    ("https://films.example./film.mp4", "/film.mp4"),
    ("https://films.example:443/film.mp4", "/film.mp4"),
    ("http://films.example:8080/film.mp4", "/film.mp4"),
    ("https://films.example?x=1", "/?x=1"),
    ("https://films.example/film.mp4#t=10", "/film.mp4"),
    ("https://films.example/@user/film.mp4", "/@user/film.mp4"),
    ("https://films.example/my%20film.mp4", "/my%20film.mp4"),
    ("https://films.example/a/../b//c.mp4", "/a/../b//c.mp4"),
    ("https://films.example/Küche.mp4", "/K%C3%BCche.mp4"),
    ("https://films.example/映画.mp4?名=1", "/%E6%98%A0%E7%94%BB.mp4?%E5%90%8D=1"),
    ("https://films.example/f?X-Amz-Signature=ab%2Fcd&e=a@b&u=http://x", "/f?X-Amz-Signature=ab%2Fcd&e=a@b&u=http://x"),
    ("https://films.example/a;v=1,2/(b)'c'*~!$&=+:[d]|.mp4", "/a;v=1,2/(b)'c'*~!$&=+:[d]|.mp4"),
    ('https://films.example/"<a>`{b}^', "/%22%3Ca%3E%60%7Bb%7D%5E"),
    ("https://bücher.example/film.mp4", "/film.mp4"),
    ("https://my_bucket.s3.films.example/film.mp4", "/film.mp4"),
    (f"http://{PUBLIC}/film.mp4", "/film.mp4"),
    (f"http://[{PUBLIC_6}]/film.mp4", "/film.mp4"),
    ("https://xn--bcher-kva.example/film.mp4", "/film.mp4"),
]


def resolving_to(*found: str) -> Guard:
    return Guard(resolve=lambda host, port: found)


def literally(host: str, port: int) -> Sequence[str]:
    """What stands there if it is an address, else a public one."""
    try:
        return [str(ip_address(host))]
    except ValueError:
        return [PUBLIC]


def refusal(act: Callable[[], object]) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        act()
    assert not caught.value.retryable
    return caught.value


# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [*INSIDE_4, *INSIDE_6])
def test_no_address_that_is_not_public_is_admitted(address: str) -> None:
    error = refusal(lambda: resolving_to(address).place("https://films.example/film.mp4?token=secret"))

    assert error.code == "source_forbidden"
    assert error.params["url"] == "https://films.example/film.mp4"
    assert address not in str(error.document()).replace("films.example", "")


@pytest.mark.parametrize("inside", ["127.0.0.1", "::1", "fe80::1%eth0", "no address"])
@pytest.mark.parametrize("place", [0, 1, 20])
def test_one_bad_address_among_good_ones_is_enough(inside: str, place: int) -> None:
    good = [f"93.184.215.{number}" for number in range(20)]

    assert refusal(lambda: resolving_to(*good[:place], inside, *good[place:]).place("http://films.example/"))


@pytest.mark.parametrize(
    "address", [PUBLIC, PUBLIC_6, "1.1.1.1", "2a00:1450:4001:82a::200e", "192.0.1.1", "172.32.0.1"]
)
def test_a_public_address_is_admitted(address: str) -> None:
    assert resolving_to(address).place("https://films.example/").addresses == (address,)


def test_a_mapped_address_is_the_one_inside_and_nat64_leads_to_public_ones() -> None:
    """In a network without IPv4 the resolver makes such addresses of every public one (RFC 6147)."""
    assert resolving_to(f"::ffff:{PUBLIC}").place("http://films.example/").addresses == (PUBLIC,)
    assert resolving_to("64:ff9b::5db8:d70e").place("http://films.example/").addresses == ("64:ff9b::5db8:d70e",)


@pytest.mark.parametrize("name", ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1", "fe80::1%eth0"])
def test_no_setting_allows_what_is_no_single_host(name: str) -> None:
    guard = Guard(allow=Allowance.of("0.0.0.0/0, ::/0, films.example"), resolve=lambda host, port: [name])

    assert refusal(lambda: guard.place("http://films.example/")).code == "source_forbidden"


def test_the_blocks_of_the_registry_are_whole() -> None:
    """The address before each block and the one behind it are public, unless another block begins there."""
    for block in addresses._SPECIAL_4:
        assert not addresses.public(block[0])
        assert not addresses.public(block[-1])


# -- how a host is written --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def listener() -> Iterator[Web]:
    """Somebody on this machine who must hear nothing."""
    with running_web(lambda request: request.reply(b"inside")) as web:
        yield web
        assert web.connections == 0


@pytest.mark.parametrize("host", [*SPELT, *LITERALS])
def test_this_machine_is_not_reached_however_it_is_written(host: str, listener: Web) -> None:
    """By the system's own resolver; no name is asked of a server outside."""

    def resolve(name: str, port: int) -> Sequence[str]:
        try:
            found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
            return [str(sockaddr[0]) for *_, sockaddr in found]
        except OSError:
            return ["127.0.0.1"]  # a name that leads inside

    web = download.Web(guard=Guard(ports=None, resolve=resolve))

    url = f"http://{host}:{listener.port}/"
    error = refusal(lambda: list(web.blocks(url, max_bytes=None, moved=lambda: None)))

    assert error.code == "source_forbidden"
    assert listener.connections == 0


def test_the_system_resolver_is_held_to_the_same_law(listener: Web) -> None:
    web = download.Web(guard=Guard(ports=None))

    for host in ("localhost", "127.0.0.1", "2130706433", "127.1"):
        url = f"http://{host}:{listener.port}/"
        assert refusal(lambda url=url: list(web.blocks(url, max_bytes=None, moved=lambda: None)))  # type: ignore[misc]
    assert listener.connections == 0


# -- the parser -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", TRICKS, ids=lambda url: ascii(url)[:50])
def test_a_url_that_could_be_read_in_two_ways_is_not_read(url: str) -> None:
    asked: list[str] = []
    guard = Guard(resolve=lambda host, port: asked.append(host) or [PUBLIC])  # type: ignore[func-returns-value]

    assert refusal(lambda: guard.place(url)).code == "source_forbidden"
    assert asked == []


@pytest.mark.parametrize("port", PORTS)
def test_a_port_that_is_not_allowed_is_refused_before_anybody_is_asked(port: int) -> None:
    asked: list[str] = []
    guard = Guard(resolve=lambda host, port: asked.append(host) or [PUBLIC])  # type: ignore[func-returns-value]

    assert refusal(lambda: guard.place(f"http://films.example:{port}/")).code == "source_forbidden"
    assert asked == []


@pytest.mark.parametrize(("url", "target"), LEGITIMATE)
def test_a_legitimate_url_passes_and_is_written_anew(url: str, target: str) -> None:
    place = Guard(resolve=literally).place(url)

    assert place.url.target == target
    assert parse(place.url.url) == place.url
    assert place.url.host.isascii()


def test_the_host_is_asked_for_by_its_one_name() -> None:
    assert parse("https://BÜCHER.example.:443/").host == "xn--bcher-kva.example"
    assert parse("https://BÜCHER.example.:443/").authority == "xn--bcher-kva.example"
    assert parse("http://films.example:8080/").authority == "films.example:8080"
    assert parse("http://[2606:2800::1]:8080/").authority == "[2606:2800::1]:8080"


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@films.example/film.mp4?token=secret#secret",
        "https://user:sec/secret@films.example/film.mp4",
        "https://user:12/secret@films.example/film.mp4",
        "https://user:?secret@films.example/film.mp4",
        "https:/user:secret@films.example/film.mp4",
        "https:user:secret@films.example/film.mp4",
        "https:\\\\user:secret@films.example\\film.mp4",
        "https://films.example\\user:secret@127.0.0.1/",
        "https://films.example:80:secret@127.0.0.1/",
        " https://user:secret@films.example/film.mp4",
        "s3://key:secret@bucket/film.mp4",
        "ftp://user:secret@films.example/" + "a" * 9000,
    ],
)
def test_no_refusal_tells_a_secret(url: str) -> None:
    error = refusal(lambda: resolving_to(PUBLIC).place(url))

    assert "secret" not in str(error.document())
    assert "secret" not in str(error)
    assert "secret" not in str(error.log)


# -- hops -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def serving() -> Iterator[Callable[[Answer], Web]]:
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(running_web(answer))


def at_home(name: str, port: int) -> Sequence[str]:
    """films.example is our own test server; every other name is what it says, or public."""
    return ["127.0.0.1"] if name == "films.example" else literally(name, port)


REDIRECTS = [
    *(f"http://{host}:{{port}}/" for host in ("127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]")),
    *("http://169.254.169.254/latest/meta-data/", "//169.254.169.254/", "http://10.0.0.1/", "http://[fd00:ec2::254]/"),
    *("file:///etc/passwd", "gopher://127.0.0.1:{port}/_", "ftp://films.example/", "data:video/mp4,x", "javascript:1"),
    *("http://user@films.example:{port}/", "http://films.example\\@127.0.0.1/", "http://films.example:{port}/a b"),
    *(
        "http://[",
        "http://films.example:99999/",
        "//user:password@films.example/",
        "http://films.example:22/",
    ),
]


@pytest.mark.parametrize("location", REDIRECTS)
def test_a_redirect_is_held_to_the_same_law(location: str, serving: Callable[[Answer], Web], listener: Web) -> None:
    def answer(request: Request) -> None:
        request.reply(status=302, location=location.format(port=listener.port))

    server = serving(answer)
    ports = (80, server.port, listener.port)
    web = download.Web(guard=Guard(allow=Allowance.of("films.example"), ports=ports, resolve=at_home))

    url = f"http://films.example:{server.port}/film.mp4?token=secret"
    error = refusal(lambda: list(web.blocks(url, max_bytes=None, moved=lambda: None)))

    assert error.code == "source_forbidden"
    assert error.params["url"] == f"http://films.example:{server.port}/film.mp4"
    assert (server.connections, listener.connections) == (1, 0)


def test_a_name_that_resolves_otherwise_the_second_time_changes_nothing(serving: Callable[[Answer], Web]) -> None:
    """The resolver is asked once, and the connection goes to what it said then."""
    server = serving(lambda request: request.reply(b"a film"))
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])
    guard = Guard(allow=Allowance.of("127.0.0.1"), ports=None, resolve=lambda name, port: next(answers))

    blocks = download.Web(guard=guard).blocks(
        f"http://films.example:{server.port}/", max_bytes=None, moved=lambda: None
    )

    assert b"".join(blocks) == b"a film"
    assert next(answers) == ["127.0.0.2"]


def test_a_name_that_leads_inside_after_a_break_is_refused_then(serving: Callable[[Answer], Web]) -> None:
    """Every connection is checked anew, also the one that goes on with a download."""

    def answer(request: Request) -> None:
        request.head(200, {"Content-Length": 1000, "ETag": '"v1"'})
        request.send(b"x" * 10)

    server = serving(answer)
    answers = iter([["127.0.0.1"], ["127.0.0.2"], ["127.0.0.1"]])
    guard = Guard(allow=Allowance.of("127.0.0.1"), ports=None, resolve=lambda name, port: next(answers))
    web = download.Web(guard=guard, pause_s=0)

    url = f"http://films.example:{server.port}/"
    error = refusal(lambda: list(web.blocks(url, max_bytes=None, moved=lambda: None)))

    assert error.code == "source_forbidden"
    assert server.connections == 1


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"])
def test_no_proxy_of_the_environment_is_asked(
    name: str, serving: Callable[[Answer], Web], listener: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, f"http://127.0.0.1:{listener.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    server = serving(lambda request: request.reply(b"a film"))
    web = download.Web(guard=Guard(allow=Allowance.of("films.example"), ports=None, resolve=at_home))

    blocks = web.blocks(f"http://films.example:{server.port}/", max_bytes=None, moved=lambda: None)

    assert b"".join(blocks) == b"a film"
    assert listener.connections == 0


# -- what a fleet's owner allows --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "allowed", ["10.0.0.0/8", "10.1.2.3", "10.1.2.0/24, ::1", "media.internal", "fd00::/8,Media.Internal"]
)
def test_an_allowed_network_or_host_is_admitted(allowed: str) -> None:
    guard = Guard(allow=Allowance.of(allowed), resolve=lambda host, port: ["10.1.2.3"])

    assert guard.place("http://media.internal/film.mp4").addresses == ("10.1.2.3",)


@pytest.mark.parametrize("allowed", ["", "10.1.3.0/24", "other.internal", "internal", "::/0", "64:ff9b::10.1.2.3"])
def test_another_one_is_not(allowed: str) -> None:
    guard = Guard(allow=Allowance.of(allowed), resolve=lambda host, port: ["10.1.2.3"])

    assert refusal(lambda: guard.place("http://media.internal/film.mp4"))


def test_what_is_allowed_may_also_come_mapped_but_not_by_way_of_nat64() -> None:
    allow = Allowance.of("10.0.0.0/8")

    assert Guard(allow=allow, resolve=lambda host, port: ["::ffff:10.0.0.1"]).place("http://a.example/")
    assert refusal(lambda: Guard(allow=allow, resolve=lambda h, p: ["64:ff9b::10.0.0.1"]).place("http://a.example/"))


@pytest.mark.parametrize(
    "text", ["10.0.0.1/8", "10.0.0.0/33", "http://media.internal", "*.internal", "a b", "10.0.0.0/x"]
)
def test_a_setting_that_is_wrong_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Allowance.of(text)


def test_ports_are_a_list_or_any() -> None:
    assert ports_of("80, 443") == (80, 443)
    assert ports_of("any") is None
    for wrong in ("", "0", "65536", "80;443", "http", "８０"):
        with pytest.raises(ValueError, match="ports"):
            ports_of(wrong)


# -- the resolver -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), "media_url_not_accessible"),
        (socket.gaierror(socket.EAI_AGAIN, "later"), "source_unavailable"),
        (OSError("no network"), "source_unavailable"),
        ([], "media_url_not_accessible"),
    ],
)
def test_a_host_that_is_not_found_is_told_from_a_resolver_that_does_not_answer(
    said: OSError | list[str], code: str
) -> None:
    def resolve(host: str, port: int) -> Sequence[str]:
        if isinstance(said, OSError):
            raise said
        return said

    with pytest.raises(PipelineError) as caught:
        Guard(resolve=resolve).place("http://films.example/")

    assert caught.value.code == code


def test_there_are_enough_vectors() -> None:
    vectors = len(INSIDE_4) + len(INSIDE_6) + len(SPELT) + len(LITERALS) + len(TRICKS) + len(PORTS) + len(REDIRECTS)

    assert vectors >= 250
    assert len(LEGITIMATE) >= 20
