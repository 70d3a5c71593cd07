"""The text that a source brings becomes WebVTT on the asset's timeline, and is never worth the asset."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import av
import pytest
from av.stream import Disposition
from makers import make_clip
from texts import Said, TextIn, cc_data, make_caption_track, make_captioned_clip, make_text_clip, pop_on

from pipeline.media import a53, texts
from pipeline.media.a53 import PictureCaptions
from pipeline.media.probe import probe
from pipeline.media.webvtt import StyledCue, read_styled
from pipeline.stages.ingest import MEDIA, ingest
from pipeline.tasks import IngestTask, Limits, MediaInfo, TextStream, from_json

CORPUS = Path(os.environ.get("REELWAY_MEDIA", Path(__file__).parents[2].parent / "shared" / "media"))
RATE = 25
SAID = (
    Said(start=0.5, end=1.2, text="Tom & Jerry < 3"),
    Said(start=1, end=1.6, text="Über all das,\nsagte sie"),
)


class Learned:
    """What ingest told of a file, and the texts that it wrote."""

    def __init__(self, path: Path) -> None:
        self.files: dict[str, str] = {}
        self.media: MediaInfo = probe(path, Limits(), lambda _fraction: None, self.files.__setitem__)

    @property
    def texts(self) -> tuple[TextStream, ...]:
        return self.media.text

    def cues(self, number: int = 0) -> Sequence[StyledCue]:
        file = self.texts[number].file
        assert file is not None
        return read_styled(self.files[file])

    def read(self, number: int = 0) -> list[str]:
        return [cue.payload for cue in self.cues(number)]

    @property
    def picture_late_ms(self) -> float:
        """How much later than the asset its picture begins; what was muxed beside it is late with it."""
        assert self.media.video is not None
        return float(self.media.video.start - self.media.start) * 1000


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mkv", "subrip"), ("mkv", "ass"), ("mkv", "webvtt"), ("mp4", "mov_text"), ("mov", "mov_text")],
)
def test_a_text_stream_becomes_cues_at_its_times(tmp_path: Path, suffix: str, codec: str) -> None:
    break_ = {"ass": r"\N"}.get(codec, "\n")
    escaped = SAID[0].raw.decode().replace("&", "&amp;").replace("<", "&lt;") if codec == "webvtt" else SAID[0].text
    # Only tx3g has no cues at the same time: its samples follow each other.
    first_end = 1.0 if codec == "mov_text" else 1.2
    said = (
        Said(start=0.5, end=first_end, text=escaped),
        Said(start=1, end=1.6, text=str(SAID[1].text).replace("\n", break_)),
    )
    film = Learned(make_text_clip(tmp_path / f"film.{suffix}", TextIn(codec=codec, said=said)))

    (text,) = film.texts
    assert (text.codec, text.language, text.cues, text.file) == (codec, "en", 2, "text-1.vtt")
    assert film.read() == ["Tom &amp; Jerry &lt; 3", "Über all das,\nsagte sie"]
    times = [(cue.start_ms - film.picture_late_ms, cue.end_ms - film.picture_late_ms) for cue in film.cues()]
    assert times == [pytest.approx((500, first_end * 1000), abs=2), pytest.approx((1000, 1600), abs=2)]


def test_what_the_container_says_of_a_text_is_told(tmp_path: Path) -> None:
    signs = TextIn(codec="subrip", said=SAID, language="ger", title="Signs\x07", disposition=Disposition.forced)
    deaf = TextIn(codec="ass", said=SAID, language=None, disposition=Disposition.hearing_impaired | Disposition.default)
    film = Learned(make_text_clip(tmp_path / "film.mkv", signs, deaf))

    assert [(t.language, t.title, t.default, t.forced, t.hearing_impaired) for t in film.texts] == [
        ("de", "Signs", False, True, False),
        ("und", None, True, False, True),
    ]
    assert [text.file for text in film.texts] == ["text-1.vtt", "text-2.vtt"]


def test_the_first_track_of_an_mp4_is_not_chosen_by_anybody(tmp_path: Path) -> None:
    """Muxers enable the first track of every kind; that is no wish to have it shown."""
    film = Learned(make_text_clip(tmp_path / "film.mp4", TextIn(codec="mov_text", said=SAID)))

    assert [text.default for text in film.texts] == [False]


def test_cues_are_cut_to_the_asset(tmp_path: Path) -> None:
    """t = 0 is where the media begin: what is said before is cut, what comes after the end is left out."""
    clip = make_clip(tmp_path / "clip.mkv", seconds=2, video_start=1, audio_start=1)
    said = (
        Said(start=0, end=0.9, text="before"),
        Said(start=0.9, end=1.5, text="into"),
        Said(start=2, end=2.25, text="inside"),
        Said(start=2.5, end=9, text="over the end"),
        Said(start=7, end=9, text="after"),
    )
    film = Learned(make_text_clip(tmp_path / "film.mkv", TextIn(codec="subrip", said=said), clip=clip))

    assert film.read() == ["into", "inside", "over the end"]
    zero, end = float(film.media.start) * 1000, float(film.media.duration) * 1000
    assert [(cue.start_ms, cue.end_ms) for cue in film.cues()] == [
        pytest.approx((0, 1500 - zero), abs=2),
        pytest.approx((2000 - zero, 2250 - zero), abs=2),
        pytest.approx((2500 - zero, end), abs=2),
    ]


def test_empty_and_doubled_cues_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    said = (
        Said(start=0.2, end=0.4, text=r"{\i1}{\i0}"),
        Said(start=0.5, end=1, text="Caf\xe9".encode("latin-1")),
        Said(start=1, end=1.5, text="shadow"),
        Said(start=1, end=1.5, text="shadow"),
        Said(start=1, end=1.5, text=r"{\an8}sign"),
    )
    film = Learned(make_text_clip(tmp_path / "film.mkv", TextIn(codec="ass", said=said)))

    assert [(cue.payload, cue.top) for cue in film.cues()] == [("Café", False), ("shadow", False), ("sign", True)]


def test_a_million_cues_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "MOST_CUES", 20)  # for two tracks
    flood = [Said(start=n / 100, end=n / 100 + 0.01, text=f"number {n}") for n in range(150)]
    calm = TextIn(codec="subrip", said=SAID)
    film = Learned(make_text_clip(tmp_path / "film.mkv", TextIn(codec="subrip", said=flood), calm))

    assert [text.cues for text in film.texts] == [10, 2]
    assert "text_too_much" in film.media.notes


def test_much_text_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each track, and every so many cues: whoever says nothing for long is taken for dead."""
    monkeypatch.setattr(texts, "_BEAT_EVERY", 10)
    path = make_text_clip(tmp_path / "few.mkv", *[TextIn(codec="subrip", said=SAID)] * 2)
    flood = TextIn(codec="subrip", said=[Said(start=n / 100, end=n / 100 + 0.01, text=f"{n}") for n in range(150)])
    much = make_text_clip(tmp_path / "much.mkv", *[flood] * 2)
    ticks: dict[Path, list[float]] = {path: [], much: []}

    for each, told in ticks.items():
        probe(each, Limits(), told.append)

    assert len(ticks[much]) - len(ticks[path]) >= 2 * 14
    assert set(ticks[much][-28:]) == {1}


def test_pairs_of_line_21_give_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_BEAT_EVERY", 2)
    made = make_caption_track(tmp_path / "film.mov", pop_on([(20, 40, "Listen")]))
    ticks: list[float] = []

    media = probe(made, Limits(), ticks.append)

    assert [text.codec for text in media.text] == ["eia_608"]
    assert ticks.count(1) > 5


def test_pictures_of_text_are_told_of_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    with av.open(str(make_clip(tmp_path / "clip.mp4"))) as source, av.open(str(path), "w") as container:
        copied = {stream.index: container.add_stream_from_template(stream) for stream in source.streams}
        container.add_mux_stream("hdmv_pgs_subtitle")
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = copied[packet.stream_index]
                container.mux(packet)
    film = Learned(path)

    assert [(text.codec, text.file, text.cues) for text in film.texts] == [("hdmv_pgs_subtitle", None, 0)]
    assert "text_in_pictures" in film.media.notes
    assert film.files == {}


def test_the_stage_writes_the_texts_before_it_names_them(tmp_path: Path) -> None:
    clip = make_text_clip(tmp_path / "film.mkv", TextIn(codec="subrip", said=SAID))
    finished: list[str] = []

    class Folder:
        def path(self, name: str) -> Path:
            return tmp_path / name

        def done(self, name: str) -> None:
            finished.append(name)

    facts = ingest(IngestTask(asset="abc", url="", source=""), {"source": clip}, Folder(), lambda _fraction: None)

    assert finished == ["text-1.vtt", MEDIA]
    assert from_json(MediaInfo, (tmp_path / MEDIA).read_text()).text == facts.media.text


@pytest.mark.parametrize(
    ("name", "index", "codec", "language", "first"),
    [
        ("androidx-media/mkv/sample_with_ass_subtitles.mkv", 2, "ass", "und", "This is the first subtitle."),
        ("androidx-media/mkv/sample_with_srt.mkv", 2, "subrip", "en", "This is the first subtitle."),
        # Matroska's own form of WebVTT, which libav has no name for.
        ("androidx-media/mkv/sample_with_vtt_subtitles.mkv", 2, "webvtt", "und", "This is the first subtitle."),
        ("torchcodec/nasa_13013.mp4", 5, "mov_text", "en", "NAR: This is the optical and science segment of the Webb"),
    ],
)
def test_real_files(name: str, index: int, codec: str, language: str, first: str) -> None:
    if not (CORPUS / name).exists():
        pytest.skip(f"no real media at {CORPUS} (REELWAY_MEDIA)")
    film = Learned(CORPUS / name)

    assert (film.texts[-1].index, film.texts[-1].codec, film.texts[-1].language) == (index, codec, language)
    assert film.read(len(film.texts) - 1)[0] == first


# -- captions inside the picture --------------------------------------------------------------------------------------

SHOWN = [(20, 30, "Hello, you!"), (50, 60, "And bye.")]


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        *(("film.mp4", "libx264"), ("film.ts", "libx264"), ("film.mkv", "libx264")),
        *(("film.mp4", "libx265"), ("film.ts", "libx265"), ("film.ts", "mpeg2video")),
    ],
)
def test_captions_in_the_picture_are_a_track(tmp_path: Path, name: str, codec: str) -> None:
    """To the frame, although packets come in the order of decoding."""
    film = Learned(make_captioned_clip(tmp_path / name, pop_on(SHOWN), codec=codec, seconds=3, rate=RATE))

    (text,) = film.texts
    assert (text.index, text.codec, text.hearing_impaired, text.default) == (None, "eia_608", True, False)
    assert film.read() == ["Hello, you!", "And bye."]
    late = film.picture_late_ms
    assert [((cue.start_ms - late) * RATE / 1000, (cue.end_ms - late) * RATE / 1000) for cue in film.cues()] == [
        pytest.approx((start, end), abs=0.05) for start, end, _ in SHOWN
    ]


def test_the_first_channel_is_in_the_language_that_is_spoken(tmp_path: Path) -> None:
    first = Learned(make_captioned_clip(tmp_path / "cc1.mkv", pop_on(SHOWN), seconds=3, languages=("fre", "eng")))
    third = Learned(make_captioned_clip(tmp_path / "cc3.mkv", pop_on(SHOWN), field=2, seconds=3, languages=("fre",)))

    assert [(text.language, text.title) for text in first.texts] == [("fr", None)]
    assert [(text.language, text.title) for text in third.texts] == [("und", "CC3")]


def test_a_track_of_captions_beside_the_picture(tmp_path: Path) -> None:
    film = Learned(make_caption_track(tmp_path / "film.mov", pop_on(SHOWN), seconds=3, rate=RATE))

    (text,) = film.texts
    assert (text.index, text.codec, text.default, text.hearing_impaired) == (2, "eia_608", False, True)
    assert film.read() == ["Hello, you!", "And bye."]


def test_a_picture_without_captions_has_no_text(tmp_path: Path) -> None:
    film = Learned(make_clip(tmp_path / "film.ts", seconds=1))

    assert film.texts == ()
    assert not {"text_unreadable", "captions_708_only"} & set(film.media.notes)


class _Packets:
    """A picture whose packets we write byte by byte."""

    def __init__(self, tmp_path: Path, codec: str = "libx264") -> None:
        suffix = "ts" if codec == "mpeg2video" else "mp4"
        with av.open(str(make_clip(tmp_path / f"clip.{suffix}", codec=codec, seconds=1, audio=None))) as container:
            self.captions = PictureCaptions(container.streams.video[0])
            self.time_base = container.streams.video[0].time_base

    def feed(self, ticks: int, data: bytes) -> None:
        packet = av.Packet(data)
        packet.pts = packet.dts = ticks
        self.captions.feed(packet)

    def pairs(self) -> list[tuple[int, int, int, int]]:
        return [
            (int(pair.at / (self.time_base or 1)), pair.field, pair.first, pair.second)
            for pair in self.captions.pairs()
        ]


def test_pairs_come_in_the_order_of_showing(tmp_path: Path) -> None:
    picture = _Packets(tmp_path)
    for ticks, code in ((0, (1, 2)), (4, (7, 8)), (2, (3, 4))):
        picture.feed(ticks, b"head" + cc_data(code, 1) + b"tail")

    assert [(at, first & 0x7F) for at, _, first, _ in picture.pairs()] == [(0, 1), (2, 3), (4, 7)]


def test_both_fields_of_a_frame_are_found_wherever_they_lie(tmp_path: Path) -> None:
    """Of two fields that are coded one by one, the second one's captions lie behind the first one's picture."""
    picture = _Packets(tmp_path)
    picture.feed(0, cc_data((1, 2), 1) + bytes(100_000) + cc_data((3, 4), 2))

    assert [(field, first & 0x7F) for _, field, first, _ in picture.pairs()] == [(1, 1), (2, 3)]


@pytest.mark.parametrize(("codec", "guarded"), [("libx264", True), ("mpeg2video", False)])
def test_bytes_that_keep_start_codes_apart_are_taken_out(tmp_path: Path, codec: str, guarded: bool) -> None:
    # Three empty triplets whose zeros look like a start code, and then a pair.
    body = bytes([0x44, 0xFF]) + b"\xfa\x00\x00" + b"\x00\x00\x01" + b"\xfa\x00\x00" + b"\xfc\x61\x62"
    picture = _Packets(tmp_path, codec)
    picture.feed(
        0, b"GA94\x03" + (body.replace(b"\x00\x00\x00\x00\x01", b"\x00\x00\x03\x00\x00\x03\x01") if guarded else body)
    )

    assert [(first, second) for _, _, first, second in picture.pairs()] == [(0x61, 0x62)]


def test_captions_of_cea_708_alone_are_noted(tmp_path: Path) -> None:
    picture = _Packets(tmp_path)
    picture.feed(0, cc_data(None, of_708=b"\xff\x02\x21\xfe\x61\x62"))
    assert picture.captions.only_708

    picture.feed(1, cc_data((0x61, 0x62)))
    picture.feed(2, cc_data(None, of_708=b"\xff\x02\x21"))
    assert not picture.captions.only_708


@pytest.mark.parametrize("data", [b"GA94\x03", b"GA94\x03\x5f", b"GA94\x03\x5f\xff\xfc"])
def test_captions_that_break_off_are_no_harm(tmp_path: Path, data: bytes) -> None:
    picture = _Packets(tmp_path)
    picture.feed(0, data)

    assert picture.pairs() == []


def test_a_picture_has_captions_for_its_fields_and_no_more(tmp_path: Path) -> None:
    picture = _Packets(tmp_path)
    picture.feed(0, cc_data((0x61, 0x62)) * 100_000)

    assert len(picture.pairs()) == 8


def test_no_more_pairs_are_kept_than_a_day_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(a53, "_MOST", 3)
    picture = _Packets(tmp_path)
    for ticks in range(5):
        picture.feed(ticks, cc_data((0x61, 0x62)))

    assert len(picture.pairs()) == 3
    assert picture.captions.overflowed
