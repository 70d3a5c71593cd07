"""The one door through which untrusted media comes in: everything that opens a source opens it here.

libav opens much that is not media: playlists that name other files, `ffconcat` scripts, SDP texts that make it listen
on a socket. So a source is opened by a `file:` path, with that protocol alone, or by a handle, with none, and only as
one of the formats that we serve. What libav says when it refuses is translated here into the catalogue, with a look at
the first bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from pipeline.errors import PipelineError
from pipeline.media.handle import Handle

FORMATS = (
    *("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "mpegts", "mpeg", "mpegvideo", "avi", "flv", "mxf"),
    *("asf", "ogg", "mp3", "aac", "wav", "w64", "flac", "aiff", "caf", "amr"),
)
"""libav's names of the demuxers that are allowed; none of them reads a second file."""

_FORMATS = {"format_whitelist": ",".join(FORMATS)}
_START = 4096
"""Bytes that are looked at before libav sees any."""
_HEAD = 1 << 20
"""Bytes that are looked at to say what it is that libav refused."""
_BUFFER = 1 << 20
"""Bytes that libav asks a handle for at once; it takes less, and gets no more than is there."""

Source = Path | Handle
"""Where a source is read: a file of this machine, or an object that the parent reads for us."""

_FOREIGN = (
    # (offset, bytes, what it is): content that we refuse whatever libav thinks of it.
    (0, b"#EXTM3U", "playlist"),
    (0, b"ffconcat", "playlist"),
    (0, b"\x89PNG", "image"),
    (0, b"\xff\xd8\xff", "image"),
    (0, b"GIF8", "image"),
    (0, b"BM", "image"),
    (0, b"II*\x00", "image"),
    (0, b"MM\x00*", "image"),
    (8, b"WEBP", "image"),
    (8, b"avif", "image"),
    (8, b"heic", "image"),
    (8, b"heix", "image"),
    (8, b"mif1", "image"),
    (0, b"%PDF", "pdf"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"Rar!", "rar"),
    (0, b"7z\xbc\xaf", "7z"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"MZ", "program"),
    (0, b"\x7fELF", "program"),
)
_MEDIA = (
    # What a damaged file was before it was damaged.
    (4, b"ftyp"),
    (4, b"moov"),
    (4, b"mdat"),
    (4, b"styp"),
    (4, b"moof"),
    (4, b"free"),
    (4, b"wide"),
    (4, b"skip"),
    (0, b"\x1a\x45\xdf\xa3"),
    (0, b"RIFF"),
    (0, b"OggS"),
    (0, b"fLaC"),
    (0, b"FLV"),
    (0, b"ID3"),
    (0, b"\x00\x00\x01\xba"),
    (0, b"\x06\x0e\x2b\x34"),
)
_ENCRYPTED = (b"pssh", b"encv", b"enca")
"""Boxes of ISO/IEC 23001-7 (common encryption)."""


def open_source(source: Source) -> InputContainer:
    """The source, open for reading; the caller closes it.

    Raises `media_url_not_accessible` (no regular file, or not readable), `media_url_file_broken` (empty, or damaged)
    and `media_url_unsupported_format` (anything that is not media that we serve).
    """
    foreign = _foreign(_first(source, _START))
    if foreign:
        raise _unsupported(foreign)
    try:
        return _opened(source)
    except (av.FFmpegError, UnicodeDecodeError, ValueError) as error:
        raise _refusal(_first(source, _HEAD), error) from error


def size_of(source: Source) -> int:
    """Bytes."""
    return source.size if isinstance(source, Handle) else source.stat().st_size


def _opened(source: Source) -> InputContainer:
    if isinstance(source, Path):
        options = {**_FORMATS, "protocol_whitelist": "file"}
        return av.open(f"file:{source}", "r", options=options, metadata_errors="ignore")
    # No protocol at all is called "none": an empty list would be no list.
    options = {**_FORMATS, "protocol_whitelist": "none"}
    return av.open(source.open(), "r", options=options, metadata_errors="ignore", buffer_size=_BUFFER)


def packets(container: InputContainer, *streams: Stream) -> Iterator[Packet[Stream]]:
    """Every packet of these streams that carries data, in the order of the file.

    PyAV's own packets for flushing are left out (decode None at the end). With them goes its mistake: where a stream
    appears in the middle of the file (FLV, MPEG-TS and -PS allow it), it asks for the flush of a stream that it has no
    object for, and raises IndexError when all packets have been read (av/container/input.py `demux`, 18.1).
    """
    demuxed = container.demux(list(streams))
    while True:
        try:
            packet = next(demuxed, None)
        except IndexError:
            return
        if packet is None:
            return
        if packet.size:
            yield packet


def decoded(container: InputContainer, stream: VideoStream | AudioStream) -> Iterator[Any]:
    """Every frame of the stream that can be decoded, as it comes out of the decoder.

    What cannot be decoded is left out: damage in the middle of a file is not its end.
    """
    decode: Callable[[Packet[Any] | None], list[Any]] = stream.codec_context.decode
    for packet in chain(_readable(packets(container, stream)), (None,)):
        with suppress(av.FFmpegError):
            yield from decode(packet)


def _readable(source: Iterator[Packet[Stream]]) -> Iterator[Packet[Stream]]:
    """The packets up to where the file can no longer be read."""
    with suppress(av.FFmpegError):
        yield from source


@contextmanager
def reading(code: str) -> Iterator[None]:
    """Translate what libav raises inside into an error with this code."""
    try:
        yield
    except (av.FFmpegError, UnicodeDecodeError) as error:
        # libav's MemoryError too: it refuses absurd sizes, which only a damaged file asks for.
        raise PipelineError(code, log=repr(error)) from error


def _first(source: Source, size: int) -> bytes:
    """The first `size` bytes, or all where there are fewer."""
    start = _first_of_handle(source, size) if isinstance(source, Handle) else _first_of_file(source, size)
    if not start:
        raise PipelineError("media_url_file_broken", log="the file is empty")
    return start


def _first_of_file(path: Path, size: int) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise PipelineError("media_url_not_accessible", url=path.name, reason="it is no regular file")
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise PipelineError(
            "media_url_not_accessible", url=path.name, reason="it may not be read", log=repr(error)
        ) from error


def _first_of_handle(handle: Handle, size: int) -> bytes:
    reader, start = handle.open(), b""
    while len(start) < size and (data := reader.read(size - len(start))):
        start += data
    return start


def _foreign(head: bytes) -> str | None:
    """What the content is, where it surely is nothing that we serve."""
    for offset, magic, kind in _FOREIGN:
        if head.startswith(magic, offset):
            return kind
    return _text(head[:_START])


def _text(start: bytes) -> str | None:
    """`playlist` or `text`, if these bytes are a text at all."""
    if any(byte < 0x20 and byte not in b"\t\n\r\f\x1b" for byte in start):
        return None
    try:
        # The look may end inside a character.
        text = start.decode("utf-8", errors="strict" if len(start) < _START else "ignore").lstrip("\ufeff \t\r\n")
    except UnicodeDecodeError:
        return None
    return "playlist" if text.startswith(("#EXTM3U", "ffconcat", "<MPD", "v=0")) or "<MPD" in text else "text"


def _refusal(head: bytes, error: Exception) -> PipelineError:
    is_media = any(head.startswith(magic, offset) for offset, magic in _MEDIA) or _is_transport_stream(head)
    if is_media and any(box in head for box in _ENCRYPTED):
        return _unsupported("encrypted media", error)
    if is_media:
        return PipelineError("media_url_file_broken", log=repr(error))
    return _unsupported("unknown", error)


def _is_transport_stream(head: bytes) -> bool:
    return len(head) > 564 and all(head[n * 188] == 0x47 for n in range(4))


def _unsupported(detected: str, error: Exception | None = None) -> PipelineError:
    return PipelineError("media_url_unsupported_format", detected_format=detected, log=repr(error) if error else None)
