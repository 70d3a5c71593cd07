"""The one door through which untrusted media comes in: everything that opens a source opens it here.

libav opens much that is not media: playlists that name other files, `ffconcat` scripts, SDP texts that make it listen
on a socket. So a source is opened by a `file:` path, with that protocol alone, or by a handle, with none, and only as
one of the formats that we serve. What libav says when it refuses is translated here into the catalogue, with a look at
the first bytes.
"""

from __future__ import annotations

import signal
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Stream
from av.video.stream import VideoStream

from pipeline.errors import PipelineError
from pipeline.media.clock import JoinedClock, joined_clock
from pipeline.media.formats import FORMATS, encrypted, unsupported
from pipeline.media.handle import Handle
from pipeline.media.playlists import is_live
from pipeline.media.tables import more_samples_than_bytes

_FORMATS = {"format_whitelist": ",".join(FORMATS), "max_pixels": str(8192 * 8192)}
"""What may be opened. libav decodes the first picture of every stream to know its format: larger ones it need not know,
because nothing is made of them (a film may carry sixty covers)."""
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


def open_source(source: Source, admitted: Sequence[str] = ()) -> InputContainer:
    """The source, open for reading; the caller closes it. `admitted`: the formats to name where it is none of ours.

    Raises `media_url_not_accessible` (no regular file, or not readable), `media_url_file_broken` (empty, or damaged),
    `video_file_live` (the manifest of a live stream) and `media_url_unsupported_format` (anything else that is not
    media that we serve).
    """
    foreign = _foreign(beginning(source, _START))
    if foreign:
        if foreign == "playlist" and size_of(source) <= _HEAD and is_live(beginning(source, _HEAD)):
            raise PipelineError("video_file_live", reason="a playlist without an end")
        raise unsupported(foreign, supported=admitted)
    if _tables_lie(source):
        raise PipelineError("media_url_file_broken", reason="its tables name more than it can hold")
    try:
        with _in_time():
            return _opened(source)
    except (av.FFmpegError, UnicodeDecodeError, ValueError) as error:
        raise _refusal(beginning(source, _HEAD), error, admitted) from error


def size_of(source: Source) -> int:
    """Bytes."""
    return source.size if isinstance(source, Handle) else source.stat().st_size


_OPENING_S = 10
"""Seconds of processor time for the headers alone. They take a fraction of one, unless they were made to take for ever:
half a million comments do, each of which libav compares with every other."""


@contextmanager
def _in_time() -> Iterator[None]:
    """End this process (SIGVTALRM) where what is inside takes longer: libav asks nobody while it reads a header."""
    signal.setitimer(signal.ITIMER_VIRTUAL, _OPENING_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _tables_lie(source: Source) -> bool:
    if isinstance(source, Handle):
        return more_samples_than_bytes(source.open(), source.size)
    with source.open("rb") as file:
        return more_samples_than_bytes(file, size_of(source))


def _opened(source: Source) -> InputContainer:
    if isinstance(source, Path):
        options = {**_FORMATS, "protocol_whitelist": "file"}
        return av.open(f"file:{source}", "r", options=options, metadata_errors="ignore")
    # No protocol at all is called "none": an empty list would be no list.
    options = {**_FORMATS, "protocol_whitelist": "none"}
    return av.open(source.open(), "r", options=options, metadata_errors="ignore", buffer_size=_BUFFER)


def packets(container: InputContainer, *streams: Stream, clock: JoinedClock | None = None) -> Iterator[Packet[Stream]]:
    """Every packet of these streams that carries data, in the order of the file.

    Where a recording's clock may start anew in the middle, the times are those of one clock (`pipeline.media.clock`);
    who wants to ask it brings a new one.
    """
    clock, wanted = clock or joined_clock(container), {stream.index for stream in streams}
    if clock is None:
        yield from _packets(container, streams)
        return
    for packet in clock.mended(_packets(container, [*_timed(container), *streams])):
        if packet.stream_index in wanted:
            yield packet


def read_only(container: InputContainer, stream: Stream) -> None:
    """Let libav pass over the other streams, unless their packets are needed to know the time."""
    if joined_clock(container) is None:
        for other in container.streams:
            if other.index != stream.index:
                other.discard = Discard.all


def _timed(container: InputContainer) -> list[Stream]:
    return [*container.streams.video, *container.streams.audio]


def _packets(container: InputContainer, streams: Sequence[Stream]) -> Iterator[Packet[Stream]]:
    """Every packet that carries data.

    PyAV's own packets for flushing are left out (decode None at the end). With them goes its mistake: where a stream
    appears in the middle of the file (FLV, MPEG-TS and -PS allow it), it asks for the flush of a stream that it has no
    object for, and raises IndexError when all packets have been read (av/container/input.py `demux`, 18.1).
    """
    demuxed = container.demux(list(dict.fromkeys(streams)))
    while True:
        try:
            packet = next(demuxed, None)
        except IndexError:
            return
        if packet is None:
            return
        if packet.size:
            yield packet


def decoded(
    container: InputContainer,
    stream: VideoStream | AudioStream,
    chosen: Callable[[Iterator[Packet[Stream]]], Iterator[Packet[Stream]]] = iter,
) -> Iterator[Any]:
    """Every frame of the stream that can be decoded, as it comes out of the decoder; of all packets, or those `chosen`.

    What cannot be decoded is left out: damage in the middle of a file is not its end.
    """
    decode: Callable[[Packet[Any] | None], list[Any]] = stream.codec_context.decode
    for packet in chain(chosen(_readable(packets(container, stream))), (None,)):
        with suppress(av.FFmpegError):
            yield from decode(packet)


def _readable(source: Iterator[Packet[Stream]]) -> Iterator[Packet[Stream]]:
    """The packets up to where the file can no longer be read."""
    with suppress(av.FFmpegError):
        yield from source


@contextmanager
def reading() -> Iterator[None]:
    """Translate what libav raises inside."""
    try:
        yield
    except (av.FFmpegError, UnicodeDecodeError) as error:
        # libav's MemoryError too: it refuses absurd sizes, which only a damaged file asks for.
        raise PipelineError("media_url_file_broken", reason="it cannot be read to its end", log=repr(error)) from error


def beginning(source: Source, size: int) -> bytes:
    """The first `size` bytes, or all where there are fewer."""
    start = _of_handle(source, size) if isinstance(source, Handle) else _of_file(source, size)
    if not start:
        raise PipelineError("media_url_file_broken", reason="it is empty")
    return start


def _of_file(path: Path, size: int) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise PipelineError("media_url_not_accessible", url=path.name, reason="it is no regular file")
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise PipelineError(
            "media_url_not_accessible", url=path.name, reason="it may not be read", log=repr(error)
        ) from error


def _of_handle(handle: Handle, size: int) -> bytes:
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


def _refusal(head: bytes, error: Exception, admitted: Sequence[str]) -> PipelineError:
    is_media = any(head.startswith(magic, offset) for offset, magic in _MEDIA) or _is_transport_stream(head)
    if is_media and any(box in head for box in _ENCRYPTED):
        return encrypted(log=repr(error))
    if is_media:
        return PipelineError("media_url_file_broken", reason="its headers cannot be read", log=repr(error))
    return unsupported("unknown", supported=admitted, log=repr(error))


def _is_transport_stream(head: bytes) -> bool:
    return len(head) > 564 and all(head[n * 188] == 0x47 for n in range(4))
