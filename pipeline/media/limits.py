"""Whether a source that we can read is one that we may serve: its facts against its job's limits. Pure.

What is learned while the bytes come (the size of any source, a live stream) is refused by whoever brings them, and what
would be dangerous to look at by `probe`, before this is asked. So a size that is too large for everything is
`media_filesize_too_large`; one that is too large for a video, or for sound alone, is known here, and says so.
"""

from __future__ import annotations

from math import isqrt

from pipeline.errors import PipelineError
from pipeline.media.formats import unsupported, unsupported_sound
from pipeline.tasks import Limits, MediaInfo, VideoStream

_WITHOUT_BASE_LAYER = (5, 10)
"""Profiles of Dolby Vision that may have no picture for other players."""


def check(media: MediaInfo, limits: Limits) -> None:
    """Raises the first of the codes of the reference that the source deserves; its values say by how much."""
    if limits.formats and not set(media.format.split(",")) & set(limits.formats):
        raise unsupported(media.format, supported=limits.formats)
    if media.video is None:
        _check_codecs(media, limits)
        _check_size("audio_filesize_too_large", media.size, limits.max_audio_bytes)
    else:
        _check_size("video_filesize_too_large", media.size, limits.max_video_bytes)
        _check_picture(media.video, limits)
    _check_duration(media, limits)


def _check_codecs(media: MediaInfo, limits: Limits) -> None:
    for sound in media.audio:
        if limits.audio_formats and sound.codec not in limits.audio_formats:
            raise unsupported_sound(sound.codec, supported=limits.audio_formats)


def _check_size(code: str, size: int, most: int | None) -> None:
    if most is not None and size > most:
        raise PipelineError(code, current_size=size, maximum_size=most)


def _check_picture(video: VideoStream, limits: Limits) -> None:
    layer = video.dolby_vision
    if layer is not None and layer.compatibility == 0 and layer.profile in _WITHOUT_BASE_LAYER:
        # Its colours are IPT, bent scene by scene: shown by any other rule they are green and purple.
        wanted = "it with a picture that every player can show: as Dolby Vision profile 8, HDR10, HLG or SDR"
        raise unsupported(f"Dolby Vision profile {layer.profile}", supported=limits.formats, wanted=wanted)
    short, long = sorted(video.display_size)
    shown = f"{video.display_size[0]}x{video.display_size[1]}"
    if limits.min_resolution is not None and _less((short, long), limits.min_resolution):
        raise resolution_error("video_resolution_too_low", shown, limits)
    if limits.max_resolution is not None and _less(limits.max_resolution, (short, long)):
        raise resolution_error("video_resolution_too_high", shown, limits)
    if limits.max_aspect_ratio is not None and long > limits.max_aspect_ratio * short:
        raise PipelineError(
            "video_resolution_invalid_aspect_ratio",
            current_resolution=shown,
            maximum_aspect_ratio=limits.max_aspect_ratio,
        )


def _less(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """One side is shorter, whichever way either of them lies."""
    return any(mine < theirs for mine, theirs in zip(sorted(one), sorted(other), strict=True))


def resolution_error(code: str, shown: str, limits: Limits) -> PipelineError:
    """A picture of the size `shown`, as `WIDTHxHEIGHT`, with both ends of what is accepted."""
    side = isqrt(limits.max_pixels)
    least, most = limits.min_resolution or (1, 1), limits.max_resolution or (side, side)
    return PipelineError(
        code,
        current_resolution=shown,
        minimum_resolution=f"{least[0]}x{least[1]}",
        maximum_resolution=f"{most[0]}x{most[1]}",
    )


def _check_duration(media: MediaInfo, limits: Limits) -> None:
    least, most, pictured = limits.min_duration_s, limits.max_duration_s, media.video is not None
    if not pictured:
        least = least if limits.min_audio_duration_s is None else limits.min_audio_duration_s
        most = most if limits.max_audio_duration_s is None else limits.max_audio_duration_s
    current, minimum = _seconds(float(media.duration)), _seconds(least or 0)
    if least is not None and media.duration < least:
        raise PipelineError(
            "video_duration_too_short" if pictured else "audio_duration_too_short",
            current_duration=current,
            minimum_duration=minimum,
        )
    if most is not None and media.duration > most:
        raise PipelineError(
            "video_duration_too_long" if pictured else "audio_duration_too_long",
            current_duration=current,
            minimum_duration=minimum,
            maximum_duration=_seconds(most),
        )


def _seconds(exact: float) -> float | int:
    """To the millisecond; whole ones without a point."""
    rounded = round(float(exact), 3)
    return int(rounded) if rounded.is_integer() else rounded
