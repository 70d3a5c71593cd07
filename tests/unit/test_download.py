"""A source comes whole from the web or not at all, whatever its server does: a real server, on loopback."""

from __future__ import annotations

import random
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import pytest
from needs import Require
from web_server import Answer, Request, Web, running_web

from pipeline import download
from pipeline.errors import PipelineError
from pipeline.guard import Allowance, Guard

FILM = random.Random(1).randbytes(300_000)
ETAG = '"v1"'


def the_film(request: Request, *, etag: str | None = ETAG, film: bytes = FILM) -> None:
    """As a good server answers: whole, or from where it was asked, if the file is still that one."""
    named = {"etag": etag} if etag else {}
    asked = request.headers.get("range")
    if asked is None or request.headers.get("if-range") != etag:
        request.reply(film, **named)
    else:
        first = int(asked.removeprefix("bytes=").removesuffix("-"))
        request.reply(film[first:], 206, content_range=f"bytes {first}-{len(film) - 1}/{len(film)}", **named)


def broken_after(size: int, request: Request, **headers: object) -> None:
    """The head of a whole film, and the first bytes of it."""
    request.head(200, {"Content-Length": len(FILM), "ETag": ETAG, **headers})
    request.send(FILM[:size])
    request.reset()


@pytest.fixture
def serving() -> Iterator[Callable[[Answer], Web]]:
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(running_web(answer))


def a_door(**terms: Any) -> download.Web:
    """For this machine, and with less patience than usual."""
    guard = Guard(allow=Allowance.of("127.0.0.0/8"), ports=None)
    return download.Web(guard=guard, **{"pause_s": 0.0, **terms})


def download_of(url: str, *, max_bytes: int | None = None, moved: Any = lambda: None, **terms: Any) -> bytes:
    return b"".join(a_door(**terms).blocks(url, max_bytes=max_bytes, moved=moved))


def refusal(url: str, **how: Any) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        download_of(url, **how)
    return caught.value


# -- what goes well ---------------------------------------------------------------------------------------------------


def test_a_file_comes_whole(serving: Callable[[Answer], Web]) -> None:
    web = serving(the_film)

    assert download_of(f"{web.url}/a/film.mp4?token=secret") == FILM
    [request] = web.requests
    assert request.path == "/a/film.mp4?token=secret"
    assert request.headers["host"] == f"127.0.0.1:{web.port}"
    assert request.headers["accept-encoding"] == "identity"
    assert not {"cookie", "authorization", "referer", "range"} & set(request.headers)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status: int, serving: Callable[[Answer], Web]) -> None:
    def answer(request: Request) -> None:
        if request.path == "/film":
            the_film(request)
        else:
            request.reply(status=status, location="film")

    web = serving(answer)

    assert download_of(f"{web.url}/start") == FILM
    assert [request.path for request in web.requests] == ["/start", "/film"]


def test_a_body_in_chunks_and_one_without_a_length_come_whole(serving: Callable[[Answer], Web]) -> None:
    def answer(request: Request) -> None:
        if request.path == "/chunked":
            request.head(200, {"Transfer-Encoding": "chunked"})
            for at in range(0, len(FILM), 70_000):
                piece = FILM[at : at + 70_000]
                request.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            request.send(b"0\r\n\r\n")
        else:
            request.head(200, {"Connection": "close"})
            request.send(FILM)

    web = serving(answer)

    assert download_of(f"{web.url}/chunked") == FILM
    assert download_of(f"{web.url}/until-the-end") == FILM


def test_a_server_that_sends_more_than_it_said_is_not_listened_to(serving: Callable[[Answer], Web]) -> None:
    web = serving(lambda request: (request.head(200, {"Content-Length": 1000}), request.send(FILM))[0])

    assert download_of(web.url) == FILM[:1000]


# -- breaks -----------------------------------------------------------------------------------------------------------


def test_a_download_goes_on_after_every_break(serving: Callable[[Answer], Web]) -> None:
    """Three breaks, each time at another place; no byte comes twice."""

    def answer(request: Request) -> None:
        first = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        if request.number == 1:
            broken_after(100_000, request)
        elif request.number < 4:
            request.head(
                206,
                {
                    "Content-Length": len(FILM) - first,
                    "Content-Range": f"bytes {first}-{len(FILM) - 1}/{len(FILM)}",
                    "ETag": ETAG,
                },
            )
            request.send(FILM[first : first + 50_000])
            request.reset()
        else:
            the_film(request)

    web = serving(answer)

    assert download_of(web.url) == FILM
    assert [request.headers.get("if-range") for request in web.requests] == [None, ETAG, ETAG, ETAG]


def test_a_file_with_a_date_instead_of_a_version_goes_on(serving: Callable[[Answer], Web]) -> None:
    date = "Sat, 01 Nov 2025 10:00:00 GMT"

    def answer(request: Request) -> None:
        if request.number == 1:
            request.head(200, {"Content-Length": len(FILM), "Last-Modified": date})
            request.send(FILM[:1000])
        else:
            assert request.headers["if-range"] == date
            request.reply(FILM[1000:], 206, content_range=f"bytes 1000-{len(FILM) - 1}/{len(FILM)}", last_modified=date)

    assert download_of(serving(answer).url) == FILM


def test_a_server_without_ranges_sends_everything_again_and_no_byte_comes_twice(
    serving: Callable[[Answer], Web],
) -> None:
    def answer(request: Request) -> None:
        if request.number == 1:
            broken_after(100_000, request)
        else:
            request.reply(FILM, etag=ETAG)

    assert download_of(serving(answer).url) == FILM


@pytest.mark.raises_code("source_changed")
@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, {"etag": '"v2"'}),  # what If-Range is for
        (200, {}),
        (206, {"etag": '"v2"', "content_range": f"bytes 1000-{len(FILM) - 1}/{len(FILM)}"}),
        (206, {"etag": ETAG, "content_range": f"bytes 1000-{len(FILM)}/{len(FILM) + 1}"}),
        (206, {"etag": ETAG, "content_range": f"bytes 999-{len(FILM) - 1}/{len(FILM)}"}),
        (206, {"etag": ETAG, "content_range": "bytes 1001-/*"}),
        (206, {"etag": ETAG, "content_range": "items 1000-2000/3000"}),
        (206, {"etag": ETAG}),
        (416, {"content_range": "bytes */500"}),
    ],
)
def test_another_file_after_a_break_is_never_joined_to_the_first(
    status: int, headers: dict[str, str], serving: Callable[[Answer], Web]
) -> None:
    def answer(request: Request) -> None:
        if request.number == 1:
            broken_after(1000, request)
        else:
            request.reply(FILM[1000:], status, **headers)

    error = refusal(serving(answer).url)

    assert (error.code, error.retryable) == ("source_changed", True)


@pytest.mark.raises_code("source_unavailable")
@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_a_file_without_a_version_does_not_go_on(etag: str | None, serving: Callable[[Answer], Web]) -> None:
    def answer(request: Request) -> None:
        request.head(200, {"Content-Length": len(FILM), **({"ETag": etag} if etag else {})})
        request.send(FILM[:1000])

    web = serving(answer)

    error = refusal(web.url)

    assert (error.code, error.retryable) == ("source_unavailable", True)
    assert "1000 of 300000" in error.message
    assert len(web.requests) == 1


def test_a_length_that_is_never_reached_is_given_up(serving: Callable[[Answer], Web]) -> None:
    def answer(request: Request) -> None:
        if request.number == 1:
            request.reply(FILM, etag=ETAG, content_length=len(FILM) + 1)
        else:
            size = len(FILM)
            request.reply(b"", 206, etag=ETAG, content_range=f"bytes {size}-{size}/{size + 1}", content_length=1)

    web = serving(answer)

    assert refusal(web.url).code == "source_unavailable"
    assert len(web.requests) == 6


@pytest.mark.parametrize("body", [b"5\r\nhello", b"5\r\nhello\r\nno number\r\n", b"ffffffffffffffffff\r\nhello"])
def test_chunks_that_break_off_are_not_the_end(body: bytes, serving: Callable[[Answer], Web]) -> None:
    def answer(request: Request) -> None:
        request.head(200, {"Transfer-Encoding": "chunked"})
        request.send(body)

    assert refusal(serving(answer).url).code == "source_unavailable"


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.raises_code("media_url_not_accessible")
@pytest.mark.parametrize("status", [204, 206, 300, 304, 400, 401, 403, 404, 410, 451])
def test_what_cannot_be_had_is_refused_for_good(status: int, serving: Callable[[Answer], Web]) -> None:
    web = serving(lambda request: request.reply(b"sorry", status))

    error = refusal(f"{web.url}/film.mp4?token=secret")

    assert (error.code, error.retryable) == ("media_url_not_accessible", False)
    assert error.params["status"] == status
    assert error.params["url"] == f"{web.url}/film.mp4"
    assert "secret" not in str(error.document())


@pytest.mark.parametrize(
    ("status", "after", "expected"),
    [
        (408, None, None),
        (425, None, None),
        (429, "7", 7),
        (500, None, None),
        (502, "soon", None),
        (503, "99999999999999999999", 3600),
        (503, "-5", None),
    ],
)
def test_what_may_pass_is_tried_again_when_the_server_asks_for_it(
    status: int, after: str | None, expected: int | None, serving: Callable[[Answer], Web]
) -> None:
    headers = {"retry_after": after} if after else {}
    web = serving(lambda request: request.reply(b"", status, **headers))

    error = refusal(web.url)

    assert (error.code, error.retryable) == ("source_unavailable", True)
    assert error.params.get("retry_after_s") == expected


def test_a_server_may_name_the_moment_to_come_back(serving: Callable[[Answer], Web]) -> None:
    web = serving(lambda request: request.reply(b"", 503, retry_after=formatdate(time() + 100, usegmt=True)))

    assert 90 <= int(refusal(web.url).params["retry_after_s"]) <= 101


def test_a_circle_of_redirects_ends(serving: Callable[[Answer], Web]) -> None:
    web = serving(lambda request: request.reply(status=302, location=request.path))

    assert refusal(web.url).code == "media_url_not_accessible"
    assert len(web.requests) == 6


@pytest.mark.parametrize("coding", ["gzip", "br", "GZIP", "zstd"])
def test_nothing_is_unpacked(coding: str, serving: Callable[[Answer], Web]) -> None:
    web = serving(lambda request: request.reply(FILM, content_encoding=coding))

    assert refusal(web.url).code == "media_url_not_accessible"


def test_a_transfer_coding_that_we_do_not_know_is_refused(serving: Callable[[Answer], Web]) -> None:
    web = serving(lambda request: request.reply(FILM, transfer_encoding="gzip, chunked"))

    assert refusal(web.url).code == "media_url_not_accessible"


def test_an_empty_file_is_broken(serving: Callable[[Answer], Web]) -> None:
    assert refusal(serving(lambda request: request.reply(b"")).url).code == "media_url_file_broken"


def test_a_head_that_breaks_off_is_no_empty_file(serving: Callable[[Answer], Web]) -> None:
    web = serving(lambda request: request.send(b"HTTP/1.1 200 OK\r\nDate: today\r\n"))

    assert refusal(web.url).code == "source_unavailable"


def test_a_file_that_says_it_is_too_large_is_not_begun(serving: Callable[[Answer], Web]) -> None:
    web = serving(lambda request: request.head(200, {"Content-Length": 10**13}))

    error = refusal(web.url, max_bytes=1000)

    assert (error.code, error.params["current_size"]) == ("media_filesize_too_large", 10**13)


@pytest.mark.raises_code("media_filesize_too_large")
@pytest.mark.parametrize("chunked", [True, False])
def test_an_endless_body_ends_at_the_limit(chunked: bool, serving: Callable[[Answer], Web]) -> None:
    def answer(request: Request) -> None:
        request.head(200, {"Transfer-Encoding": "chunked"} if chunked else {})
        piece = bytes(65536)
        request.trickle(b"10000\r\n%b\r\n" % piece if chunked else piece, every_s=0)

    error = refusal(serving(answer).url, max_bytes=1_000_000)

    assert error.code == "media_filesize_too_large"
    assert 1_000_000 < int(error.params["current_size"]) <= 1_000_000 + 1024**2


@pytest.mark.parametrize("banner", [b"SSH-2.0-OpenSSH_9.6\r\n", b"-ERR wrong number of arguments\r\n", b"\0" * 100_000])
def test_what_speaks_no_http_is_refused(banner: bytes, serving: Callable[[Answer], Web]) -> None:
    error = refusal(serving(lambda request: request.send(banner)).url)

    assert error.code == "media_url_not_accessible"
    assert "SSH" not in str(error.document())


def test_nobody_there_may_pass(serving: Callable[[Answer], Web]) -> None:
    with running_web(the_film) as web:
        url = web.url

    assert refusal(url).code == "source_unavailable"


def test_a_connection_that_ends_without_an_answer_may_pass(serving: Callable[[Answer], Web]) -> None:
    assert refusal(serving(lambda request: request.reset()).url).code == "source_unavailable"


# -- time -------------------------------------------------------------------------------------------------------------


def silent(request: Request) -> None:
    request.over.wait()


def slow_head(request: Request) -> None:
    request.send(b"HTTP/1.1 200 OK\r\n")
    request.trickle(b"X-More: yes\r\n")


def always_about_to_begin(request: Request) -> None:
    request.trickle(b"HTTP/1.1 100 Continue\r\n\r\n")


def slow_body(request: Request) -> None:
    request.head(200, {"Content-Length": len(FILM), "ETag": ETAG})
    request.trickle(b"x")


def slow_length_of_a_chunk(request: Request) -> None:
    request.head(200, {"Transfer-Encoding": "chunked"})
    request.trickle(b"0")


def slow_trailer(request: Request) -> None:
    request.head(200, {"Transfer-Encoding": "chunked"})
    request.send(b"5\r\nhello\r\n0\r\n")
    request.trickle(b"X-More: yes\r\n")


def a_byte_a_connection(request: Request) -> None:
    request.over.wait(0.05)
    first = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
    told = {"Content-Range": f"bytes {first}-{len(FILM) - 1}/{len(FILM)}"} if first else {}
    request.head(206 if first else 200, {"Content-Length": len(FILM) - first, "ETag": ETAG, **told})
    request.send(FILM[first : first + 1])


@pytest.mark.raises_code("source_too_slow")
@pytest.mark.parametrize(
    "answer",
    [silent, slow_head, slow_body, slow_length_of_a_chunk, slow_trailer, a_byte_a_connection, always_about_to_begin],
)
def test_a_server_that_lets_us_wait_is_left(answer: Answer, serving: Callable[[Answer], Web]) -> None:
    error = refusal(serving(answer).url, window_s=0.5, rate=10_000)

    assert (error.code, error.retryable) == ("source_too_slow", True)


def test_a_slow_body_that_is_fast_enough_comes_whole(serving: Callable[[Answer], Web]) -> None:
    def answer(request: Request) -> None:
        request.head(200, {"Content-Length": 20_000})
        for at in range(0, 20_000, 1000):
            request.over.wait(0.05)
            request.send(FILM[at : at + 1000])

    assert download_of(serving(answer).url, window_s=0.8, rate=100) == FILM[:20_000]


def test_a_download_has_its_time_and_no_more(serving: Callable[[Answer], Web]) -> None:
    def answer(request: Request) -> None:
        request.head(200, {"Content-Length": 10**12})
        request.trickle(bytes(10_000))

    assert refusal(serving(answer).url, longest_s=0.5, rate=1).code == "timed_out"


# -- what has no end --------------------------------------------------------------------------------------------------


@pytest.mark.raises_code("video_file_live")
@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"HTTP/1.0 200 OK\r\nContent-Type: audio/mpeg\r\nicy-name: Radio\r\nicy-metaint: 16000\r\n\r\n", "radio"),
        (b"ICY 200 OK\r\nicy-br: 128\r\n\r\n", "radio"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=x\r\n\r\n", "cameras"),
    ],
)
def test_a_stream_that_says_that_it_is_live_is_refused_at_once(
    head: bytes, said: str, serving: Callable[[Answer], Web]
) -> None:
    def answer(request: Request) -> None:
        request.send(head)
        request.trickle(bytes(10_000))

    error = refusal(serving(answer).url, longest_s=5.0)

    assert (error.code, error.retryable) == ("video_file_live", False)
    assert said in error.message


@pytest.mark.raises_code("video_file_live")
def test_what_never_ends_and_never_said_how_long_it_is_is_live(serving: Callable[[Answer], Web]) -> None:
    def answer(request: Request) -> None:
        request.head(200, {"Content-Type": "video/mp2t"})
        request.trickle(bytes(10_000))

    web = serving(answer)

    assert refusal(web.url, longest_s=0.5, rate=1).code == "video_file_live"
    assert refusal(web.url, max_bytes=50_000).code == "media_filesize_too_large"


def test_a_radio_servers_files_and_a_stream_that_is_wanted_are_taken(serving: Callable[[Answer], Web]) -> None:
    def answer(request: Request) -> None:
        request.head(200, {"icy-name": "Radio"} | ({"Content-Length": len(FILM)} if request.path == "/file" else {}))
        request.send(FILM)

    web = serving(answer)

    assert download_of(f"{web.url}/file") == FILM
    assert download_of(f"{web.url}/stream", live=True) == FILM
    assert refusal(f"{web.url}/stream").code == "video_file_live"


class Enough(Exception):
    pass


@pytest.mark.parametrize("answer", [silent, slow_head, slow_body])
def test_a_download_can_be_stopped_while_the_server_is_silent(answer: Answer, serving: Callable[[Answer], Web]) -> None:
    stopped = threading.Event()

    def moved() -> None:
        if stopped.is_set():
            raise Enough

    url = serving(answer).url
    threading.Timer(0.3, stopped.set).start()

    with pytest.raises(Enough):
        download_of(url, moved=moved, window_s=60)


def test_a_download_that_nobody_reads_to_its_end_leaves_no_thread(serving: Callable[[Answer], Web]) -> None:
    blocks: Any = a_door().blocks(serving(the_film).url, max_bytes=None, moved=lambda: None)
    assert next(blocks)
    assert "download-pace" in {thread.name for thread in threading.enumerate()}

    blocks.close()

    assert "download-pace" not in {thread.name for thread in threading.enumerate()}


# -- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory, require: Require) -> tuple[Path, Path]:
    """(certificate, key) of `films.example`, trusted by nobody."""
    program = shutil.which("openssl")
    require(program, "there is no openssl")
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "certificate.pem", folder / "key.pem"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=films.example"]
    words += ["-addext", "subjectAltName=DNS:films.example", "-out", files[0], "-keyout", files[1]]
    subprocess.run([program, *words], check=True, capture_output=True, timeout=60)
    return files


@pytest.fixture
def secure(certificate: tuple[Path, Path]) -> Iterator[tuple[Web, list[str | None]]]:
    """The server behind TLS, and the names that its callers asked for."""
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    with running_web(the_film, context) as web:
        yield web, names


def secure_door(certificate: Path | None, host: str = "films.example") -> download.Web:
    guard = Guard(allow=Allowance.of("127.0.0.0/8"), ports=None, resolve=lambda name, port: ["127.0.0.1"])
    return download.Web(guard=guard, tls=ssl.create_default_context(cafile=certificate) if certificate else None)


def test_the_name_goes_with_the_checked_address(
    secure: tuple[Web, list[str | None]], certificate: tuple[Path, Path]
) -> None:
    web, names = secure
    url = f"https://films.example:{web.port}/film.mp4"

    assert b"".join(secure_door(certificate[0]).blocks(url, max_bytes=None, moved=lambda: None)) == FILM
    assert names == ["films.example"]
    assert web.requests[0].headers["host"] == f"films.example:{web.port}"


@pytest.mark.parametrize(("host", "trusted"), [("films.example", False), ("other.example", True)])
def test_a_certificate_that_is_not_valid_is_refused_for_good(
    host: str, trusted: bool, secure: tuple[Web, list[str | None]], certificate: tuple[Path, Path]
) -> None:
    web, _ = secure
    door = secure_door(certificate[0] if trusted else None)

    with pytest.raises(PipelineError) as caught:
        list(door.blocks(f"https://{host}:{web.port}/", max_bytes=None, moved=lambda: None))

    assert (caught.value.code, caught.value.retryable) == ("media_url_not_accessible", False)
    assert "certificate" in caught.value.message
    assert web.requests == []


def test_https_where_there_is_none_is_refused(serving: Callable[[Answer], Web]) -> None:
    """The server reads the greeting of TLS as the head of a request that never ends, and gives up."""
    web = serving(lambda request: request.reply(b"no TLS here"))

    error = refusal(f"https://127.0.0.1:{web.port}/", window_s=0.5)

    assert error.code == "source_too_slow"
    assert web.requests == []
