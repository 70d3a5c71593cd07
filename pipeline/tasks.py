"""The vocabulary: what each stage is asked, and what it answers.

Everything here is a frozen value that travels as JSON between the record, the workbench and the stage's own process.
Times are `Fraction` seconds or integer ticks of a stated timescale; nothing here is a float second.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any, Literal, TypeVar, cast

from pydantic import TypeAdapter

T = TypeVar("T")


def to_json(value: object) -> str:
    """Any value of this module (or of another module of the library) as compact JSON."""
    return _adapter(cast(Hashable, type(value))).dump_json(value).decode()


def from_json(kind: type[T], text: str | bytes) -> T:
    """The value of type `kind` that `to_json` wrote. Raises `pydantic.ValidationError`."""
    value: T = _adapter(cast(Hashable, kind)).validate_json(text)
    return value


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    # To make one takes a tenth of a second for a presentation.
    return TypeAdapter(cast(Any, kind))


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
class DolbyVision:
    """What a Dolby Vision stream says of itself (`dvcC`, `dvvC`)."""

    profile: int
    level: int
    compatibility: int
    """What the base layer is to a decoder that knows no Dolby Vision: 0 nothing that can be shown, 1 HDR10, 2 SDR, 4
    HLG."""


@dataclass(frozen=True, kw_only=True)
class Light:
    """How bright an HDR picture says it is (SMPTE ST 2086, CTA-861.3), in nits; None where it does not say."""

    mastering_peak: float | None = None
    max_content: int | None = None
    """MaxCLL: the brightest pixel of the whole picture."""
    max_average: int | None = None
    """MaxFALL: the brightest frame on average."""


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
    mirrored: bool = False
    """The display matrix swaps left and right of the stored picture; the rotation comes after that."""
    pix_fmt: str = "yuv420p"
    bits: int = 8
    """Bits of one sample."""
    color: Color = Color()
    light: Light | None = None
    dolby_vision: DolbyVision | None = None
    interlaced: bool = False
    top_field_first: bool | None = None
    """None: progressive, or nobody says."""
    profile: str | None = None
    """Of the codec, by libav's name."""
    level: int | None = None
    bitrate: int | None = None
    """Bits a second, counted from the packets."""
    open_gop: bool | None = None
    """Whether frames before a keyframe in time come after it in the file; None: it has one keyframe or none."""
    language: str = "und"
    title: str | None = None
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


SoundRole = Literal["main", "commentary", "description", "dub", "clean"]
"""What a sound is for; `description`: for people who cannot see, `clean`: without speech or effects."""


@dataclass(frozen=True, kw_only=True)
class AudioStream:
    """One sound track of a source."""

    index: int
    codec: str
    profile: str | None = None
    """Of the codec, by libav's name: `LC`, `HE-AAC` …"""
    channels: int
    layout: str
    sample_rate: int
    language: str = "und"
    """BCP 47 tag, lower case; `und` where the source does not say."""
    title: str | None = None
    default: bool = False
    role: SoundRole = "main"
    """By its dispositions."""
    bits: int | None = None
    """Bits of one sample; None for codecs that have none."""
    bitrate: int | None = None
    """Bits a second, counted from the packets."""
    start: Fraction
    end: Fraction


@dataclass(frozen=True, kw_only=True)
class TextStream:
    """One text track of a source: a subtitle stream, or captions inside the picture (CEA-608, CEA-708)."""

    index: int | None
    """Stream of the file; None for captions inside the picture."""
    codec: str
    """By libav's name: `subrip`, `mov_text`, `ass`, `webvtt`, `eia_608` …"""
    language: str = "und"
    title: str | None = None
    default: bool = False
    forced: bool = False
    hearing_impaired: bool = False
    cues: int = 0
    file: str | None = None
    """The output of ingest that holds it as WebVTT on the asset's timeline; None where it has no text that we can read
    (pictures of text, as on DVD), or no cue."""


@dataclass(frozen=True, kw_only=True)
class AttachedPicture:
    """A picture that stands still beside the media: cover art."""

    index: int
    codec: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Standard:
    """Whether the source would play as it is: what keeps it from being served without encoding. Recorded, not used."""

    reasons: tuple[str, ...] = ()
    """Empty: it is standard input. Else words of `pipeline.media.standard`."""

    @property
    def ok(self) -> bool:
        return not self.reasons


PROBE = 1
"""Counts what ingest learns of a source: one more whenever it learns more, or otherwise. What an older one wrote down
is learned again before anything new is made of it."""


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
    text: tuple[TextStream, ...] = ()
    pictures: tuple[AttachedPicture, ...] = ()
    others: int = 0
    """Streams that nothing is made of: data, attachments, further pictures, codecs that libav does not know."""
    notes: tuple[str, ...] = ()
    """What is unusual about it, as words of `pipeline.media.notes`, sorted."""
    standard: Standard | None = None
    seekable: bool = True
    """False: seeking is not reliable, so the whole picture is one chunk."""
    keyframes: tuple[Fraction, ...] = ()
    """Times of the keyframes; only in the long form."""
    sha256: str = ""
    """Checksum of the file, hex; empty where nobody counted it. Part of the name of whatever is made of it."""
    probe: int = 0
    """The `PROBE` that learned it; 0: from before they were counted."""


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
    channels: Literal[2] = 2
    loudness: float | None = None
    """Integrated loudness to bring it to, in LUFS (EBU R128); None: as it is."""


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
    """What a source may be, and what becomes of one that may not. None: no limit."""

    max_bytes: int | None = 64 * 1024**3
    """Of any source: it counts while the bytes come, when nobody knows yet what they are."""
    max_video_bytes: int | None = None
    """Of a source with a picture."""
    max_audio_bytes: int | None = None
    """Of a source without."""
    min_duration_s: float | None = None
    max_duration_s: float | None = 12 * 3600
    min_audio_duration_s: float | None = None
    """Of a source without a picture, in place of `min_duration_s`."""
    max_audio_duration_s: float | None = None
    """Of a source without a picture, in place of `max_duration_s`."""
    min_resolution: tuple[int, int] | None = None
    """(width, height) of the picture as it is shown, upright and in square pixels; the limit turns with it."""
    max_resolution: tuple[int, int] | None = None
    max_aspect_ratio: float | None = None
    """Longer side by shorter side."""
    formats: tuple[str, ...] = ()
    """Containers, by words of `pipeline.media.formats`; empty: all that we read."""
    audio_formats: tuple[str, ...] = ()
    """Codecs of a source without a picture, by libav's names; empty: all that we decode."""
    live: bool = False
    """A server that says that it sends a live stream is believed, and what it sends is taken until it ends."""
    keep_refused: bool = False
    """The private copy of a source whose ingest failed stays as long as its record, for people to look at."""
    max_pixels: int = 8192 * 8192
    """Of a decoded picture, against bombs; whatever `max_resolution` says."""
    max_streams: int = 64


USUAL_LIMITS = Limits()
"""The product's own."""


@dataclass(frozen=True, kw_only=True)
class IngestTask:
    """Learn what the source at `source` (a storage key) is; refuse what cannot be served."""

    asset: str
    url: str = field(repr=False)
    """Where the source comes from; the workbench fetches it to `source` before the stage runs."""
    source: str
    sha256: str = ""
    """Checksum of the source, hex: the workbench says it once it has fetched the file."""
    in_place: bool = False
    """The source stays where it lies: it is read there, and `source` names that place."""
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
class Loudness:
    """How loud a sound track was, as stereo (EBU R128), and what was done about it."""

    integrated: float | None
    """LUFS of the whole programme, gated; None: silence, or too short to be measured."""
    range: float | None
    """LU between its soft and its loud parts (LRA); None for less than a minute."""
    true_peak: float | None
    """dBTP; None for nothing but zeros."""
    gain: float
    """dB that were applied; peaks above the ceiling were limited after it."""
    reached: float | None = None
    """LUFS of what came out: less than was asked for where the gain's bounds kept it softer."""


@dataclass(frozen=True, kw_only=True)
class PartsFacts:
    """What transcode and audio answer."""

    parts: tuple[Part, ...]
    media_s: Fraction
    """Seconds of output made, for the realtime factor."""
    loudness: Loudness | None = None
    """Of a sound track whose profile asks for a target."""


@dataclass(frozen=True, kw_only=True)
class PackageTask:
    """Check the parts against each other and compose them into tracks of a presentation."""

    asset: str
    blueprint: Blueprint
    receipts: tuple[str, ...]
    """Storage keys of the receipts of every step that made parts."""
    replaces: tuple[Literal["video", "audio"], ...] = ()
    """Kinds of which the next version has these tracks alone; of the others, older ones stay beside them."""
    trimmed: tuple[Fraction, Fraction | None] | None = None
    """Seconds from which and to which the first version plays; None: all of it."""


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


# -- edits ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Piece(Segment):
    """A segment that was made for an edit: a stored one that was cut, or frames that were encoded again."""

    init: str = ""
    """Storage key of its own init segment, where that of its track does not fit; else empty."""


@dataclass(frozen=True, kw_only=True)
class Patch:
    """What an edit plays of one track: new pieces at its cuts, between them the segments that are there.

    In this order: `head`, the track's own segments that start in [first, last), `tail`. All times are ticks of the
    track on the source's timeline.
    """

    track: str
    first: int
    last: int
    """Equal to `first` where no segment is played whole."""
    head: tuple[Piece, ...] = ()
    tail: tuple[Piece, ...] = ()
    seams: tuple[int, ...] = ()
    """Where a player has to begin anew, because another init segment follows; the same moments in every track of an
    edit, give or take an AAC frame."""
    init: str = ""
    """Storage key of the init segment that the track had when this was made (the workbench says it): where the track
    was made again since, its patch does not fit any more."""


@dataclass(frozen=True, kw_only=True)
class TrackCut:
    """How one track is cut."""

    track: str
    kind: Literal["video", "audio"]
    timescale: int
    start: int
    """Ticks: what is played of it begins here, at a frame; sound at the AAC frame that holds the cut."""
    end: int
    """Ticks: and ends here."""
    first: int
    last: int
    """Ticks: its segments that start in [first, last) are played as they are (`Patch.first`, `Patch.last`)."""
    divided: tuple[Segment, ...] = ()
    """Its segments that are played but not as they are, in order: none, one or two, and more where the tracks' grids
    differ. Of sound also those across a seam of the pictures; those that nothing divides in the end are played as they
    are, and `Patch.first` and `Patch.last` say so."""
    rung: Rung | None = None
    """The recipe of a picture; None for sound, which is copied."""


@dataclass(frozen=True, kw_only=True)
class TrimTask:
    """Make the pieces that an edit plays beside the segments that are there.

    Inputs: `source` (only where frames are encoded), and of every divided track `<track>/init.mp4` and
    `<track>/<start tick>.m4s`. Outputs: `<track>/<start tick>.m4s`; and `<track>/init.mp4` where the encoder of today
    writes another one than the track has.
    """

    asset: str
    """Whose job it is; the tracks of a clip are another asset's."""
    source: str
    start: Fraction
    """Seconds on the source's timeline, as asked."""
    stop: Fraction | None
    """… where it ends; None: with the source."""
    timeline: Timeline
    video: VideoStream | None = None
    seekable: bool = True
    encoder: str = ""
    """Fingerprint of the build that makes the pieces: part of their name."""
    source_sha256: str = ""
    of: str = ""
    """Asset whose presentation is cut, where that is another one (a clip)."""
    # What follows is filled in by the workbench, from the presentation as it is then.
    first: int = 0
    end: int = 0
    """Output frames [first, end) are played."""
    kept: tuple[int, int] = (0, 0)
    """Output frames: between these, at keyframes that all pictures have, stored GOPs serve; what lies before and after
    is encoded. Empty (equal) where no whole GOP lies between the cuts: then everything is encoded."""
    cuts: tuple[TrackCut, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrimFacts:
    """What trim answers. Keys are names of outputs (`<track>/<start tick>.m4s`); an empty `init` is the track's own."""

    patches: tuple[Patch, ...]
    encoded: int = 0
    """Frames that were encoded, of one rung."""
    bytes: int = 0
    """Of all pieces."""


@dataclass(frozen=True, kw_only=True)
class ReviseTask:
    """Write another version (or a preview of one) of what is there; no stage runs, and no media is touched."""

    asset: str
    change: Literal["revert", "roll_back", "preview"]
    version: int = 0
    """The one to go back to."""
    start: Fraction = Fraction(0)
    stop: Fraction | None = None


@dataclass(frozen=True, kw_only=True)
class ExportTrack:
    """One track of an exported file. Its input has the track's id for its name: the whole track as one file, the init
    segment first, or WebVTT that begins at 0."""

    track: str
    kind: Literal["video", "audio", "text"]
    language: str = "und"
    name: str = ""
    default: bool = False
    seamed: bool = False
    """Of a picture: an edit plays pieces of another encoder build, so that more than one init segment is in it."""


@dataclass(frozen=True, kw_only=True)
class ExportTask:
    """Make one progressive MP4 of what is played, by copying. The output is `video.mp4`."""

    asset: str
    rung: str | None = None
    """None: the best."""
    audio: tuple[str, ...] = ()
    """Ids or languages; empty: the default one."""
    captions: tuple[str, ...] = ()
    """Ids or languages."""
    # What follows is filled in by the workbench.
    tracks: tuple[ExportTrack, ...] = ()
    start: Fraction = Fraction(0)
    """Seconds of the media's own clock at which the file begins."""
    end: Fraction = Fraction(0)


@dataclass(frozen=True, kw_only=True)
class ExportFacts:
    """What export answers."""

    size: int
    """Bytes."""
    duration: Fraction
    """Seconds."""


Task = IngestTask | TranscodeTask | AudioTask | PackageTask | SubtitleTask | TrimTask | ReviseTask | ExportTask


def as_data(value: object) -> Any:
    """The value as JSON-like data (dicts, lists, strings, numbers)."""
    return _adapter(cast(Hashable, type(value))).dump_python(value, mode="json")
