"""The formats that we read, by name. Nothing here opens a file.

A word is libav's name of a demuxer, or one of its names: `mov`, `mp4`, `m4a`, `3gp`, `3g2` and `mj2` are one family
that no reader tells apart, and so are `matroska` and `webm`. Whoever takes one of a family takes them all.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import PipelineError

FORMATS = (
    *("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "mpegts", "mpeg", "mpegvideo", "avi", "flv", "mxf"),
    *("asf", "ogg", "mp3", "aac", "wav", "w64", "flac", "aiff", "caf", "amr"),
)
"""The demuxers that are allowed; none of them reads a second file."""
AUDIO_FORMATS = (
    *("aac", "ac3", "alac", "amr_nb", "amr_wb", "eac3", "flac", "mp2", "mp3", "opus", "pcm_s16le", "pcm_s24le"),
    *("vorbis", "wmav2"),
)
"""Codecs of sound that one may well send; libav decodes many more."""
MOST_CHANNELS = 64
"""Of one sound: what libswresample can take (SWR_CH_MAX). The largest layout that has a name has 24."""


def unsupported(
    detected: str, *, supported: Sequence[str] = (), wanted: str = "", log: str | None = None
) -> PipelineError:
    """`media_url_unsupported_format`; `supported`: only these are taken, of all that we read. `wanted`: what to send,
    where another format would not help."""
    named = ", ".join(supported or FORMATS)
    only = " (whoever runs this takes no others: `formats` in docs/reference/limits.md)" if supported else ""
    return PipelineError(
        "media_url_unsupported_format",
        detected_format=detected,
        supported_formats=named,
        wanted=wanted or f"one of: {named}{only}",
        log=log,
    )


def encrypted(*, log: str | None = None) -> PipelineError:
    """`media_url_unsupported_format`, of what nobody reads without its key."""
    return unsupported("encrypted media", wanted="it as it was before it was encrypted: no key opens it here", log=log)


def unsupported_sound(codec: str, *, supported: Sequence[str] = ()) -> PipelineError:
    """`audio_format_unsupported`; `supported`: only these are taken, of all that we decode."""
    named = ", ".join(supported or AUDIO_FORMATS)
    return PipelineError("audio_format_unsupported", format=codec, supported_formats=named)
