"""The vocabulary: what each stage is asked, and what it answers.

Everything here is a frozen value that travels as JSON between the record, the workbench and the stage's own process.
Times are `Fraction` seconds or integer ticks of a stated timescale; nothing here is a float second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")


def to_json(value: object) -> str:
    """Any value of this module (or of another module of the library) as compact JSON."""
    return TypeAdapter(type(value)).dump_json(value).decode()


def from_json(kind: type[T], text: str | bytes) -> T:
    """The value of type `kind` that `to_json` wrote. Raises `pydantic.ValidationError`."""
    return TypeAdapter(kind).validate_json(text)


# -- what a source is -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Color:
    """Colour description by FFmpeg's names (`tv`, `bt709`, `smpte2084` …); None where the source does not say."""

    range: str | None = None
    primaries: str | None = None
    transfer: str | None = None
    matrix: str | None = None

    @property
    def hdr(self) -> bool:
        return self.transfer in ("smpte2084", "arib-std-b67")


@dataclass(frozen=True, kw_only=True)
class VideoStream:
    """The picture of a source. Times are in seconds of the source's own clock, after edit lists."""

    index: int
    codec: str
    width: int
    """Stored width in pixels, before aspect ratio and rotation."""
    height: int
    sample_aspect_ratio: Fraction = Fraction(1)
    rotation: Literal[0, 90, 180, 270] = 0
    """Degrees clockwise that the stored picture must be turned to be upright."""
    pix_fmt: str = "yuv420p"
    color: Color = Color()
    interlaced: bool = False
    rate: Fraction
    """Measured frames a second (of the constant grid, or the typical one where the rate varies)."""
    constant: bool = True
    """False: the distances between frames vary (VFR)."""
    frames: int
    """Presented frames of the source."""
    start: Fraction
    """Time of the first presented frame."""
    end: Fraction
    """End of the last presented frame."""

    @property
    def display_size(self) -> tuple[int, int]:
        """(width, height) in square pixels, upright."""
        width, height = round(self.width * self.sample_aspect_ratio), self.height
        return (height, width) if self.rotation in (90, 270) else (width, height)


@dataclass(frozen=True, kw_only=True)
class AudioStream:
    """One sound track of a source."""

    index: int
    codec: str
    channels: int
    layout: str
    sample_rate: int
    language: str = "und"
    """BCP 47 tag, lower case; `und` where the source does not say."""
    title: str | None = None
    default: bool = False
    start: Fraction
    end: Fraction


@dataclass(frozen=True, kw_only=True)
class MediaInfo:
    """What ingest learned of a source, as far as planning needs it; the long form is `private/<asset>/media.json`."""

    format: str
    size: int
    """Bytes."""
    duration: Fraction
    """Seconds from the earliest presented sample to the end of the last one."""
    start: Fraction
    """Source time of the earliest presented sample: t = 0 of the asset."""
    video: VideoStream | None = None
    audio: tuple[AudioStream, ...] = ()
    seekable: bool = True
    """False: seeking is not reliable, so the whole picture is one chunk."""
    keyframes: tuple[Fraction, ...] = ()
    """Times of the keyframes; only in the long form."""
    sha256: str = ""
    """Checksum of the file, hex; empty where nobody counted it. Part of the name of whatever is made of it."""


# -- what is made of it -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The output grid, frozen in the plan: every frame, keyframe and segment boundary follows from it.

    Output frame n covers [n/rate, (n+1)/rate). An asset without a picture counts AAC frames (rate 48000/1024).
    """

    rate: Fraction
    frames: int
    start: Fraction = Fraction(0)
    """Source time of output frame 0."""
    segment: Fraction = Fraction(4)
    """Nominal segment duration S in seconds: segment k starts at the first frame with time >= k·S."""
    keyframe: Fraction = Fraction(2)
    """Nominal distance of forced keyframes in seconds."""
    cuts: tuple[Fraction, ...] = ()
    """Forced boundaries (ad breaks) in output seconds."""

    @property
    def duration(self) -> Fraction:
        """Seconds."""
        return self.frames / self.rate

    @property
    def timescale(self) -> int:
        """Ticks a second of the video tracks: every output frame lasts a whole number of ticks."""
        return self.rate.numerator * (1 if self.rate.numerator >= 1000 else 1000)


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One box of the ladder for one source: the size of its picture and the encoder's settings."""

    name: str
    """`240p` … `1080p`, or the short side of a source that is smaller than every asked rung."""
    width: int
    height: int
    crf: float
    maxrate: int
    """Bits a second."""
    bufsize: int
    """Bits."""
    preset: str
    profile: str = "high"
    options: tuple[tuple[str, str], ...] = ()
    """Further encoder options of the profile, in order."""

    @property
    def track(self) -> str:
        """Name of the track and of its folder."""
        return f"video-{self.name}"


@dataclass(frozen=True, kw_only=True)
class AudioRendition:
    """One sound track to make."""

    track: str
    stream: AudioStream
    bitrate: int
    """Bits a second."""
    sample_rate: int = 48000
    channels: int = 2


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """Everything about the output that was decided once ingest knew the source; steps only say which part they make."""

    media: MediaInfo
    timeline: Timeline
    rungs: tuple[Rung, ...] = ()
    audio: tuple[AudioRendition, ...] = ()
    encoder: str = ""
    """Fingerprint of the encoder build; part of every recipe."""


# -- questions and answers of the stages ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a source may be. None: no limit."""

    max_bytes: int | None = 64 * 1024**3
    max_duration_s: int | None = 12 * 3600
    max_pixels: int = 8192 * 8192
    max_streams: int = 64


USUAL_LIMITS = Limits()
"""The product's own."""


@dataclass(frozen=True, kw_only=True)
class IngestTask:
    """Learn what the source at `source` (a storage key) is; refuse what cannot be served."""

    asset: str
    url: str
    """Where the source comes from; the workbench fetches it to `source` before the stage runs."""
    source: str
    sha256: str = ""
    """Checksum of the source, hex: the workbench says it once it has fetched the file."""
    known: bool = False
    """The source lies at `source` since an earlier job; what that learned of it comes as the input `media`, if it is
    still there."""
    limits: Limits = Limits()


@dataclass(frozen=True, kw_only=True)
class IngestFacts:
    """What ingest answers."""

    media: MediaInfo
    encoder: str
    """Fingerprint of the encoder build."""
    present: tuple[str, ...] = ()
    """Tracks that the asset has already: the workbench says it of a source that is known."""


@dataclass(frozen=True, kw_only=True)
class TranscodeTask:
    """Make the segments [first_segment, last_segment) of the grid for every rung, in one decode.

    Outputs are named `<track>/init.mp4` and `<track>/<start tick>.m4s`.
    """

    asset: str
    source: str
    video: VideoStream
    timeline: Timeline
    rungs: tuple[Rung, ...]
    first_segment: int
    last_segment: int
    seekable: bool = True
    encoder: str = ""
    source_sha256: str = ""
    """Part of the recipe, so that another source never meets these segments."""


@dataclass(frozen=True, kw_only=True)
class AudioTask:
    """Make one whole sound track. Outputs are named `<track>/init.mp4` and `<track>/<start tick>.m4s`."""

    asset: str
    source: str
    rendition: AudioRendition
    timeline: Timeline
    encoder: str = ""
    source_sha256: str = ""
    """Part of the recipe, as of a picture's."""


@dataclass(frozen=True, kw_only=True)
class Keyframe:
    """Where an IDR lies inside its segment."""

    tick: int
    """Presentation time in the track's timescale."""
    offset: int
    """First byte of its `moof`."""
    size: int
    """Bytes from there to the end of the IDR picture's data."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One immutable CMAF media segment."""

    start: int
    """Ticks of the track's timescale."""
    duration: int
    """Ticks."""
    key: str
    """Storage key."""
    size: int
    """Bytes."""
    keyframes: tuple[Keyframe, ...] = ()
    """Every IDR of a video segment; empty for sound."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A run of segments of one track, as a step made it and storage holds it."""

    track: str
    kind: Literal["video", "audio"]
    codec: str
    """RFC 6381: `avc1.64001f`, `mp4a.40.2`."""
    timescale: int
    init: str
    """Storage key of the init segment."""
    init_digest: str
    """SHA-256 of the init segment: the parts of one track must agree."""
    segments: tuple[Segment, ...]


@dataclass(frozen=True, kw_only=True)
class PartsFacts:
    """What transcode and audio answer."""

    parts: tuple[Part, ...]
    media_s: Fraction
    """Seconds of output made, for the realtime factor."""


@dataclass(frozen=True, kw_only=True)
class PackageTask:
    """Check the parts against each other and compose them into tracks of a presentation."""

    asset: str
    blueprint: Blueprint
    receipts: tuple[str, ...]
    """Storage keys of the receipts of every step that made parts."""
    replaces: tuple[Literal["video", "audio"], ...] = ()
    """Kinds of which the next version has these tracks alone; of the others, older ones stay beside them."""


@dataclass(frozen=True, kw_only=True)
class SpeechModel:
    """Which Whisper model a worker has, and how it runs it: a matter of the machine, so the worker says it."""

    name: str = "tiny.en"
    """A folder, a name of the hub (`small`, `owner/repository`), or the name of a model that comes as a package."""
    cache: str = ""
    """Folder of the hub's downloads; empty: there is none. A stage process has no network and a home of its own."""
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    compute_type: str = "int8"
    """CTranslate2's name of the numbers that it counts with: `int8`, `float16`, `float32` …"""
    threads: int = 2
    batch: int = 4
    """Pieces of at most 30 s that are listened to at once; each costs memory."""


@dataclass(frozen=True, kw_only=True)
class SubtitleTask:
    """Write down the speech of one sound track as captions on the asset's timeline.

    Outputs are `words.json` and `captions.vtt`; none of them where there is no speech.
    """

    asset: str
    source: str
    stream: AudioStream
    timeline: Timeline
    language: str | None = None
    """BCP 47 tag of what is spoken; the captions are in it. None: captions in English, translated where something else
    is spoken."""
    model: SpeechModel = SpeechModel()


@dataclass(frozen=True, kw_only=True)
class SubtitleFacts:
    """What subtitle answers."""

    speech: bool
    """False: nobody speaks, so there are no captions."""
    language: str
    """Of the captions, BCP 47; `und` where there are none."""
    spoken: str
    """Language that was heard, BCP 47; `und` where nobody speaks."""
    model: str
    """Name of the model; of a folder only its last part."""
    words: int = 0
    cues: int = 0
    speech_s: Fraction = Fraction(0)
    """Seconds that were taken for speech at first."""
    media_s: Fraction = Fraction(0)
    """Seconds that were listened to, for the realtime factor."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """How many pieces of text were left out, by reason."""


Task = IngestTask | TranscodeTask | AudioTask | PackageTask | SubtitleTask


def as_data(value: object) -> Any:
    """The value as JSON-like data (dicts, lists, strings, numbers)."""
    return TypeAdapter(type(value)).dump_python(value, mode="json")
