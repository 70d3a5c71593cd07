"""One GET from a place that the guard has checked: the connection goes to the checked address and to no other.

The name goes with it where it belongs, into the TLS handshake and the `Host` header. No proxy is asked: the standard
library's connection reads none from the environment, and a proxy would resolve the name once more.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.client import BadStatusLine, HTTPConnection, HTTPException, HTTPResponse, IncompleteRead

from pipeline.errors import PipelineError, Value
from pipeline.guard import Place
from pipeline.pace import Pace

Trust = Callable[[], ssl.SSLContext]
"""Asked only where a place wants TLS."""

CONNECT_S = 10.0
"""For the connection to one address, and again for the whole TLS handshake."""
READ_S = 60.0
"""Longest silence; the pace ends most of them sooner."""


@contextmanager
def get(place: Place, headers: Mapping[str, str], *, tls: Trust, pace: Pace) -> Iterator[HTTPResponse]:
    """The reply to `GET place`, its body unread.

    Raises, also while its body is read through `reading`: `source_unavailable` where trying again may help,
    `media_url_not_accessible` where it will not, `video_file_live`, and whatever ended the pace.
    """
    with ExitStack() as ending:
        with reading(place, pace):
            connection = ending.enter_context(_connected(place, tls, pace))
            http = HTTPConnection(place.url.host, place.url.port)
            http.sock = connection
            http.request("GET", place.url.target, headers={"Host": place.url.authority, **headers})
            try:
                reply = ending.enter_context(http.getresponse())
            except BadStatusLine as error:
                if str(error).startswith("ICY "):  # what radio servers said before they spoke HTTP
                    raise live("a radio server sends it") from error
                raise
        yield reply


@contextmanager
def reading(place: Place, pace: Pace) -> Iterator[None]:
    """The one border where errors of the network become ours."""
    try:
        with pace.waiting():
            yield
    except ssl.SSLCertVerificationError as error:
        raise _not_accessible(place, f"its certificate is not valid: {error.verify_message}") from error
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
        raise unavailable(place, "the connection broke off", log=repr(error)) from error
    except ssl.SSLError as error:
        raise _not_accessible(place, "it speaks no TLS that we know", log=repr(error)) from error
    except TimeoutError as error:
        raise unavailable(place, "it does not answer", log=repr(error)) from error
    except ConnectionRefusedError as error:
        raise unavailable(place, "it refuses the connection", log=repr(error)) from error
    except OSError as error:  # also RemoteDisconnected
        raise unavailable(place, "the connection broke off", log=repr(error)) from error
    except IncompleteRead as error:  # also a chunk whose length is no number
        raise unavailable(place, "the connection broke off", log=repr(error)) from error
    except (HTTPException, ValueError) as error:
        raise _not_accessible(place, "its reply is not HTTP", log=repr(error)) from error


def unavailable(
    place: Place, reason: str, *, log: str | None = None, status: int = 0, retry_after_s: int = 0
) -> PipelineError:
    """`status`: of the reply, and how long it asks us to wait; 0 where it does not."""
    params: dict[str, Value] = {"url": place.shown, "reason": reason}
    params |= {name: value for name, value in (("status", status), ("retry_after_s", retry_after_s)) if value}
    return PipelineError("source_unavailable", log=log, **params)


def live(reason: str) -> PipelineError:
    """What is sent has no end."""
    return PipelineError("video_file_live", reason=reason)


def _not_accessible(place: Place, reason: str, *, log: str | None = None) -> PipelineError:
    return PipelineError("media_url_not_accessible", url=place.shown, reason=reason, log=log)


def _connected(place: Place, tls: Trust, pace: Pace) -> socket.socket:
    """A connection to the first address that takes one. Raises `OSError`."""
    failure: OSError | None = None
    for address in place.addresses:
        try:
            return _connection(address, place, tls, pace)
        except ssl.SSLError:
            raise
        except OSError as error:
            pace.check()
            failure = error
    raise failure or OSError("no address")


def _connection(address: str, place: Place, tls: Trust, pace: Pace) -> socket.socket:
    connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        connection.settimeout(CONNECT_S)
        pace.over(connection)
        connection.connect((address, place.url.port))
        if place.url.scheme == "https":
            connection = _secured(connection, place, tls, pace)
        connection.settimeout(READ_S)
    except BaseException:
        connection.close()
        raise
    return connection


def _secured(connection: socket.socket, place: Place, tls: Trust, pace: Pace) -> socket.socket:
    # The handshake is a step of its own, so that the watch knows the socket that it happens on.
    secured = tls().wrap_socket(connection, server_hostname=place.url.host, do_handshake_on_connect=False)
    try:
        pace.over(secured)
        secured.do_handshake()
    except BaseException:
        secured.close()
        raise
    return secured
