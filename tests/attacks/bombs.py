"""Files that are small, or cheap to make, and would be endless or enormous to process.

`BOMBS` is the list: each writes one file and returns it. What it must end as is in `test_bombs`.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from boxes import (
    FTYP,
    avc_config,
    avc_slice,
    block,
    box,
    chunk,
    cluster,
    element,
    entry,
    full,
    matroska,
    movie,
    number,
    picture_entry,
    png,
    still_movie,
    text,
    track,
    u16,
    u32,
    wave,
)
from makers import make_clip

Bomb = Callable[[Path], Path]
BOMBS: dict[str, Bomb] = {}


def bomb(make: Callable[[Path], Path | bytes]) -> Bomb:
    """Enter the bomb into the list. `make` gets a path, and writes it or returns its content."""

    def made(folder: Path) -> Path:
        suffix = make.__name__.rpartition("_")[2]
        path = folder / f"{make.__name__.removesuffix('_' + suffix)}.{suffix}"
        content = make(path)
        if isinstance(content, bytes):
            path.write_bytes(content)
        return path

    BOMBS[make.__name__] = made
    return made


def jpeg(width: int, height: int) -> bytes:
    """A grey picture."""
    codec: Any = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = width, height, "yuvj420p", Fraction(1, 25)
    grey = np.full((height * 3 // 2, width), 128, np.uint8)
    frame = av.VideoFrame.from_ndarray(grey, format="yuvj420p")
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def _claiming(picture: bytes, width: int, height: int) -> bytes:
    """The JPEG with another size in its header (SOF0)."""
    at = picture.index(b"\xff\xc0") + 5
    return picture[:at] + u16(height, width) + picture[at + 4 :]


# -- pixels -----------------------------------------------------------------------------------------------------------


@bomb
def png_of_256_million_pixels_mov(path: Path) -> bytes:
    return still_movie(b"png ", [png(16000, 16000)], size=(16000, 16000))


@bomb
def png_that_the_header_calls_small_mov(path: Path) -> bytes:
    return still_movie(b"png ", [png(16000, 16000)], size=(16, 16))


@bomb
def jpeg_that_claims_65500_squared_mov(path: Path) -> bytes:
    return still_movie(b"jpeg", [_claiming(jpeg(64, 64), 65500, 65500)] * 10, size=(64, 64))


@bomb
def h264_parameters_of_16384_squared_mp4(path: Path) -> bytes:
    return still_movie(b"avc1", [avc_slice()] * 10, size=(16, 16), more=avc_config(16384, 16384))


@bomb
def vp9_of_65536_squared_webm(path: Path) -> bytes:
    content = bytearray(make_clip(path, codec="libvpx-vp9", audio=None, seconds=0.2, size=(64, 64)).read_bytes())
    at = content.index(b"\x49\x83\x42") + 3  # colour (3 bits), range (1), then width and height less one (16 each)
    bits = int.from_bytes(content[at : at + 5], "big") | ((1 << 32) - 1) << 4
    content[at : at + 5] = bits.to_bytes(5, "big")
    return bytes(content)


@bomb
def picture_that_grows_in_mid_stream_mov(path: Path) -> bytes:
    """The probe's sample ends before it grows."""
    return still_movie(b"jpeg", [*([jpeg(64, 64)] * 40), *([jpeg(8000, 8000)] * 3)], size=(64, 64))


@bomb
def picture_that_grows_beyond_all_limits_mov(path: Path) -> bytes:
    huge = _claiming(jpeg(64, 64), 65500, 4000)
    return still_movie(b"jpeg", [*([jpeg(64, 64)] * 40), *([huge] * 20)], size=(64, 64))


# -- time -------------------------------------------------------------------------------------------------------------


@bomb
def frames_ten_hours_apart_mkv(path: Path) -> Path:
    return make_clip(path, pts=[0, 36_000], audio=None, size=(64, 64))


@bomb
def frames_an_hour_apart_for_years_mp4(path: Path) -> bytes:
    return still_movie(b"jpeg", [jpeg(64, 64)], again=20_000, times=[(20_000, 3_500_000)], size=(64, 64))


@bomb
def one_frame_that_stands_for_a_century_mp4(path: Path) -> bytes:
    return still_movie(b"jpeg", [jpeg(64, 64)], times=[(1, 0xFFFFFFFF)], timescale=1, size=(64, 64))


@bomb
def a_million_frames_a_second_mp4(path: Path) -> bytes:
    count = 50_000
    return still_movie(b"jpeg", [jpeg(64, 64)], again=count, times=[(count, 1)], timescale=1_000_000, size=(64, 64))


@bomb
def all_frames_at_one_moment_mp4(path: Path) -> bytes:
    return still_movie(b"jpeg", [jpeg(64, 64)], again=40_000, times=[(40_000, 0)], size=(64, 64))


@bomb
def clock_that_jumps_and_turns_flv(path: Path) -> bytes:
    make_clip(path, codec="flv1", audio=None, seconds=2, size=(64, 64))
    content, at, turn = bytearray(path.read_bytes()), 13, 0
    while at + 15 < len(content):
        size = int.from_bytes(content[at + 1 : at + 4], "big")
        if content[at] == 9:
            turn += 1
            content[at + 4 : at + 8] = (b"\xff\xff\xff\x7f", bytes(4), b"\x00\x00\x00\x80")[turn % 3]
        at += size + 15
    return bytes(content)


# -- tables -----------------------------------------------------------------------------------------------------------


@bomb
def four_billion_samples_of_nothing_mp4(path: Path) -> bytes:
    made = track(
        picture_entry(b"jpeg", 16, 16),
        times=[(0xFFFFFFFF, 0xFFFFFFFF)],
        sizes=u32(1, 0xFFFFFFFF),
        chunks=u32(1, 32),
        runs=[(1, 0xFFFFFFFF, 1)],
    )
    return FTYP + movie(made) + box(b"mdat", bytes(100))


@bomb
def sixty_million_samples_in_two_kilobytes_mp4(path: Path) -> bytes:
    made = track(
        picture_entry(b"jpeg", 16, 16),
        times=[(60_000_000, 1)],
        sizes=u32(1, 60_000_000),
        chunks=u32(1, 32),
        runs=[(1, 60_000_000, 1)],
    )
    return FTYP + movie(made) + box(b"mdat", bytes(1000))


@bomb
def table_that_claims_a_billion_entries_mp4(path: Path) -> bytes:
    made = track(picture_entry(b"jpeg", 16, 16), sizes=u32(0, 0x3FFFFFFF), chunks=u32(0x3FFFFFFF))
    return FTYP + movie(made) + box(b"mdat", bytes(100))


@bomb
def moov_that_claims_a_gigabyte_mp4(path: Path) -> bytes:
    return FTYP + box(b"moov", full(b"mvhd", bytes(96)), size=1 << 30) + bytes(1000)


@bomb
def boxes_in_boxes_in_boxes_mp4(path: Path) -> bytes:
    depth = 100_000
    inner = b"".join(u32(8 * (depth - level)) + (b"moov", b"udta", b"trak")[level % 3] for level in range(depth))
    return FTYP + inner


@bomb
def three_thousand_tracks_mp4(path: Path) -> bytes:
    picture = jpeg(64, 64)
    made = track(picture_entry(b"jpeg", 64, 64), sizes=u32(0, 1, len(picture)), chunks=u32(1, len(FTYP) + 8))
    return FTYP + box(b"mdat", picture) + movie(*[made] * 3000)


@bomb
def five_thousand_tracks_mkv(path: Path) -> bytes:
    tracks = [entry(1 + each, "A_PCM/INT/LIT", 2, element(0xE1, number(0x9F, 2))) for each in range(5000)]
    return matroska(element(0x1654AE6B, *tracks), cluster(0, block(1, bytes(400))))


@bomb
def hundreds_of_thousands_of_edits_mp4(path: Path) -> bytes:
    count = 300_000
    edits = box(b"edts", full(b"elst", u32(count), u32(40, 0, 0x10000) * count))
    return still_movie(b"jpeg", [jpeg(64, 64)] * 5, size=(64, 64), edits=edits)


@bomb
def two_hundred_thousand_fragments_mp4(path: Path) -> bytes:
    clip = make_clip(path.with_name("clip.mp4"), seconds=0.2, audio=None, size=(64, 64))
    with av.open(str(clip)) as source, av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov"}) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    clip.unlink()
    content = path.read_bytes()
    at = content.index(b"moof") - 4
    empty = box(b"moof", full(b"mfhd", u32(1)), box(b"traf", full(b"tfhd", u32(1), flags=0x20000)))
    return content[:at] + empty * 200_000 + content[at:]


@bomb
def a_run_that_claims_two_billion_samples_mp4(path: Path) -> bytes:
    made = track(picture_entry(b"jpeg", 16, 16))
    extends = box(b"mvex", full(b"trex", u32(1, 1, 40, 1, 0)))
    run = full(b"trun", u32(0x7FFFFFFF, 100), flags=1)
    fragment = box(b"moof", full(b"mfhd", u32(1)), box(b"traf", full(b"tfhd", u32(1), flags=0x20000), run))
    whole = movie(made)
    return FTYP + box(b"moov", whole[8:], extends) + fragment + box(b"mdat", bytes(1000))


@bomb
def index_of_a_million_entries_avi(path: Path) -> bytes:
    content = make_clip(path, codec="mpeg4", audio=None, seconds=0.2, size=(64, 64)).read_bytes()
    at = content.index(b"idx1")
    first = content[at + 8 : at + 24]
    return content[:at] + chunk(b"idx1", first * 1_000_000)


# -- packed -----------------------------------------------------------------------------------------------------------


@bomb
def packed_header_of_a_gigabyte_mov(path: Path) -> bytes:
    packed = zlib.compress(bytes(64 << 20), 9)
    return FTYP + box(b"moov", box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", u32(0x7FFFFFFF), packed)))


@bomb
def packed_frames_of_256_megabytes_mkv(path: Path) -> bytes:
    packed = zlib.compress(bytes(256 << 20), 1)
    coding = element(0x6D80, element(0x6240, element(0x5034, number(0x4254, 0))))
    tracks = element(0x1654AE6B, entry(1, "V_MJPEG", 1, element(0xE0, number(0xB0, 64), number(0xBA, 64)), coding))
    return matroska(tracks, *(cluster(40 * each, block(1, packed)) for each in range(8)))


@bomb
def laces_and_nested_tags_mkv(path: Path) -> bytes:
    tag = b""
    for _ in range(3000):
        tag = element(0x67C8, text(0x45A3, "deeper"), tag)
    tracks = element(0x1654AE6B, entry(1, "V_MJPEG", 1, element(0xE0, number(0xB0, 64), number(0xBA, 64))))
    laced = b"\xff" + b"\xff" * 2000 + bytes(300)
    blocks = [block(1, laced, flags=0x82), block(1, laced, flags=0x86), block(1, laced, flags=0x84)]
    return matroska(tracks, element(0x1254C367, element(0x7373, tag)), cluster(0, *blocks * 300))


@bomb
def element_of_72_petabytes_mkv(path: Path) -> bytes:
    tracks = element(0x1654AE6B, entry(1, "V_MJPEG", 1, element(0xE0, number(0xB0, 64), number(0xBA, 64))))
    codec = element(0x63A2, size=(1 << 56) - 2)
    return matroska(tracks[:-1], codec, cluster(0, block(1, jpeg(64, 64))))


# -- words and pictures beside the media ------------------------------------------------------------------------------


def _flac(*blocks: tuple[int, bytes]) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="flac") as container:
        stream: Any = container.add_stream("flac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    content = out.getvalue()
    head = content[: 4 + 4 + 34]
    more = b"".join(bytes([kind]) + len(body).to_bytes(3, "big") + body for kind, body in blocks)
    return head[:4] + bytes([0]) + head[5:] + more + content[len(head) :]


@bomb
def half_a_million_comments_flac(path: Path) -> bytes:
    count = 500_000
    words = b"".join(struct.pack("<I", 13) + b"TAG%06d=abc" % each for each in range(count))
    return _flac((4, struct.pack("<I", 1) + b"x" + struct.pack("<I", count) + words))


@bomb
def sixty_huge_covers_flac(path: Path) -> bytes:
    cover = png(9000, 9000)
    named = u32(3, 9) + b"image/png" + u32(0, 9000, 9000, 8, 0, len(cover)) + cover
    return _flac(*[(6, named)] * 60)


@bomb
def two_hundred_thousand_frames_of_words_mp3(path: Path) -> bytes:
    words = b"".join(b"TXXX" + u32(16) + bytes(3) + b"tag%05d\0value"[:16].ljust(16, b"v") for _ in range(200_000))
    size = len(words)
    packed = bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
    make_clip(path, codec=None, audio="libmp3lame", seconds=1)
    return b"ID3\x03\x00\x00" + packed + words + path.read_bytes()


@bomb
def fifty_thousand_cues_mkv(path: Path) -> bytes:
    tracks = element(
        0x1654AE6B,
        entry(1, "V_MJPEG", 1, element(0xE0, number(0xB0, 64), number(0xBA, 64))),
        entry(2, "S_TEXT/UTF8", 17),
    )
    picture = jpeg(64, 64)
    pictures = [cluster(1000 * each, block(1, picture)) for each in range(20)]
    words = [block(2, b"x" * 30, at=each % 1000) for each in range(50_000)]
    return matroska(tracks, *pictures, cluster(20_000, block(1, picture), *words))


# -- sound ------------------------------------------------------------------------------------------------------------


@bomb
def sound_of_255_channels_ogg(path: Path) -> bytes:
    content = bytearray(make_clip(path, codec=None, audio="libopus", seconds=1).read_bytes())
    page = bytearray(content[: content.index(b"OggS", 4)])
    head = b"OpusHead\x01\xff" + struct.pack("<HIH", 312, 48000, 0) + b"\xff\xff\x00" + bytes(range(255))
    lacing = [255] * (len(head) // 255) + [len(head) % 255]
    first = page[:26] + bytes([len(lacing), *lacing]) + head
    first[22:26] = bytes(4)
    return bytes(first) + bytes(content[len(page) :])


@bomb
def sample_a_second_wav(path: Path) -> bytes:
    return wave(1, 2, bytes(4 * 40_000))


@bomb
def four_billion_samples_a_second_wav(path: Path) -> bytes:
    return wave(0xFFFFFFFF, 2, bytes(400_000))


@bomb
def sound_of_65535_channels_wav(path: Path) -> bytes:
    return wave(48000, 65535, bytes(1_000_000))


@bomb
def sound_that_claims_four_gigabytes_wav(path: Path) -> bytes:
    return wave(8000, 1, bytes(16_000), size=0xFFFFFFFF)


# -- without an end ---------------------------------------------------------------------------------------------------


@bomb
def nothing_but_padding_ts(path: Path) -> bytes:
    head = make_clip(path, seconds=0.2, audio=None, size=(64, 64)).read_bytes()
    return head + (b"\x47\x1f\xff\x10" + b"\xff" * 184) * 200_000


@bomb
def eight_thousand_programs_ts(path: Path) -> bytes:
    """Tables that announce a thousand streams, which never come."""
    streams = b"".join(b"\x1b" + struct.pack(">H", 0xE000 | 0x100 + each) + b"\xf0\x00" for each in range(190))
    pat = _section(0, b"".join(struct.pack(">HH", 1 + each, 0xE000 | 0x20 + each) for each in range(40)))
    maps = b"".join(_packets(0x20 + each, _section(2, b"\xe1\x00\xf0\x00" + streams, 1 + each)) for each in range(40))
    return (_packets(0, pat) + maps) * 40


def _section(table: int, body: bytes, number_: int = 1) -> bytes:
    section = bytes([table]) + struct.pack(">HHBBB", 0xB000 | len(body) + 9, number_, 0xC1, 0, 0) + body
    return section + u32(_crc(section))


def _crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
    return crc


def _packets(pid: int, section: bytes) -> bytes:
    data, made, first = b"\0" + section, b"", True
    while data:
        made += struct.pack(">BHB", 0x47, (0x4000 if first else 0) | pid, 0x10) + data[:184].ljust(184, b"\xff")
        data, first = data[184:], False
    return made


@bomb
def one_byte_mp4(path: Path) -> bytes:
    return b"\0"
