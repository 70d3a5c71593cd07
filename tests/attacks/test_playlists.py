"""A source is one file: what it names is neither opened nor fetched, by whatever name it comes."""

from __future__ import annotations

import io
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import pytest
from makers import make_clip
from playlists import Bait, attacks
from trials import Court
from watching import Listener, Tripwire, bound_udp, free_udp_ports, listening

from pipeline.errors import PipelineError
from pipeline.media.handle import Handle
from pipeline.media.probe import probe
from pipeline.media.sources import Source
from pipeline.ports import StoredObject
from pipeline.ranges import Served
from pipeline.storage.folder import FolderStorage
from pipeline.tasks import Limits, MediaInfo

PAYLOADS = Path(os.environ.get("REELWAY_MEDIA", Path(__file__).parents[2].parent / "shared" / "media")) / "payloads"
CANARY = "canary5ecret"
OTHER_NAMES = ("mp4", "ts", "avi")
REFUSED = {"media_url_unsupported_format", "media_url_file_broken", "video_file_live", "video_file_broken"}
REFUSED |= {"audio_file_broken", "audio_format_unsupported"}


class Trap:
    """A folder with bait in it, and everything that tells whether somebody took it."""

    def __init__(self, folder: Path, listener: Listener) -> None:
        self.bait = Bait(folder=folder, tcp=listener.port, udp=free_udp_ports())
        self._listener = listener
        self._ports = bound_udp()
        for path in (self.bait.movie, self.bait.stream):
            make_clip(path, seconds=0.4, size=(64, 64), codec="mpeg2video" if path.suffix == ".ts" else "libx264")
        self.bait.words.write_text(CANARY)
        self.wire = Tripwire([self.bait.movie, self.bait.stream, self.bait.words])
        self.attacks: Mapping[str, bytes] = attacks(self.bait)

    def taken(self) -> list[str]:
        """What was taken since the last time."""
        knocks, self._listener.knocks[:] = [repr(knock) for knock in self._listener.knocks], []
        ports = {self.bait.udp, self.bait.udp + 1} & (bound_udp() - self._ports)
        return [*knocks, *sorted(self.wire.tripped()), *map(str, sorted(ports))]

    def lay(self, name: str, *, suffix: str = "") -> Path:
        """The attack as a file."""
        path = self.bait.folder / (f"{name}.{suffix}" if suffix else name)
        path.write_bytes(self.attacks[name])
        return path


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory, require: Any) -> Iterator[Trap]:
    require(sys.platform.startswith("linux"), "only Linux tells who opens a file")
    with listening() as listener:
        made = Trap(tmp_path_factory.mktemp("bait"), listener)
        yield made
        made.wire.close()


NAMES = sorted(attacks(Bait(folder=Path("/bait"), tcp=1, udp=2)))


def test_there_are_many() -> None:
    assert len(NAMES) >= 100


def learned(source: Source) -> MediaInfo | str:
    """What `probe` learns of it, or the code of its refusal."""
    try:
        return probe(source, Limits(), lambda _fraction: None)
    except PipelineError as error:
        return error.code


def by_handle(path: Path) -> MediaInfo | str:
    """Keys of storage are ours; the name that libav hears is theirs."""
    key = path.with_name("object")
    shutil.copyfile(path, key)
    stored = StoredObject(key=key.name, size=key.stat().st_size, etag="", modified_ms=0)
    with Served(FolderStorage(path.parent), stored, lambda: None) as served:
        channel = socket.socket(fileno=os.dup(served.fileno()))
        with channel:
            return learned(Handle(channel, name=path.name, size=served.size))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_a_source_names_is_opened(name: str, trap: Trap) -> None:
    """As a file and by a handle, under its own name and under honest ones. Without a sandbox: that would hide it."""
    trap.taken()
    for suffix in ("", *OTHER_NAMES):
        path = trap.lay(name, suffix=suffix)
        for learn in (learned, by_handle):
            outcome = learn(path)
            assert isinstance(outcome, MediaInfo) or outcome in REFUSED, (path.name, outcome)
            assert trap.taken() == [], path.name
            if isinstance(outcome, MediaInfo):  # harmless: what it holds itself
                assert CANARY not in str(outcome)
                assert outcome.video is None or outcome.video.width != 64, "the picture of a canary"
        path.unlink()


TRAITOROUS_NAMES = (
    *("concat:canary.mp4|canary.ts", "subfile,,start,0,end,0,,:canary.mp4", "data:video;base64,AAAA", "pipe:0"),
    *("cache:canary.mp4", "crypto:canary.mp4", "file:canary.mp4", "-i.mp4", "clip%03d.mp4", "clip*.mp4", "@list"),
    *("tcp:127.0.0.1:9.mp4", "http:127.0.0.1.mp4", "ffrtmphttp:x.mp4", "clip\n.mp4", "clip\x1b[2J.mp4", "..mp4"),
)


@pytest.mark.parametrize("name", TRAITOROUS_NAMES)
def test_a_name_is_only_a_name(name: str, trap: Trap) -> None:
    content = make_clip(trap.bait.folder / "honest.mp4", seconds=0.4, size=(96, 64), audio=None).read_bytes()
    path = trap.bait.folder / name
    path.write_bytes(content)
    trap.taken()

    for learn in (learned, by_handle):
        outcome = learn(path)
        assert isinstance(outcome, MediaInfo), outcome
        assert outcome.video is not None
        assert outcome.video.width == 96
    assert trap.taken() == []


@pytest.mark.parametrize(
    "name", ["near.ffconcat", "far.m3u8", "url-far.mov", "near.mpd", "listen.sdp", "subtitles.avi"]
)
@pytest.mark.parametrize("served", [False, True])
def test_no_product_comes_of_it(name: str, served: bool, trap: Trap, tmp_path: Path) -> None:
    """In its sandbox, as on a worker."""
    with Court(tmp_path) as court:
        verdict = court.try_(trap.lay(name, suffix="mp4"), served=served)

    assert verdict.outcome in REFUSED
    assert trap.taken() == []


@pytest.mark.skipif(not PAYLOADS.is_dir(), reason="the real payloads are not on this machine (REELWAY_MEDIA)")
def test_the_payloads_of_others_read_nothing(trap: Trap) -> None:
    """`read_passwd.avi` names a file of the system; the other one an address of loopback."""
    wire = Tripwire([Path("/etc/passwd")])
    found = [path for path in PAYLOADS.rglob("*") if path.is_file()]
    assert found
    wire.tripped()

    copies = [Path(shutil.copy(path, trap.bait.folder)) for path in found]
    outcomes = {path.name: (learned(path), by_handle(path)) for path in copies}

    assert wire.tripped() == set()
    assert trap.taken() == []
    assert all(isinstance(one, str) and one in REFUSED for pair in outcomes.values() for one in pair), outcomes
    wire.close()


# -- the trap works ----------------------------------------------------------------------------------------------------


def test_a_careless_reader_reads_what_a_concat_script_names(trap: Trap) -> None:
    path = trap.lay("near.ffconcat", suffix="mp4")
    trap.taken()

    with av.open(str(path)) as container:
        assert container.streams.video[0].width == 64

    assert trap.taken() == ["canary.mp4"]
    assert learned(path) == "media_url_unsupported_format"
    assert trap.taken() == []


def test_a_careless_reader_reads_and_fetches_what_a_playlist_names(trap: Trap) -> None:
    far, web = trap.lay("far.m3u8"), trap.lay("web.m3u8")
    trap.taken()

    with av.open(str(far)):
        pass
    with pytest.raises(av.FFmpegError):
        av.open(str(web), options={"protocol_whitelist": "file,http,tcp"})

    read, *rest = sorted(trap.taken(), reverse=True)
    assert read == "canary.ts"
    assert all("GET /hls.ts" in knock for knock in rest)
    assert rest


def test_a_careless_reader_listens_where_a_description_says(trap: Trap) -> None:
    trap.taken()

    def read() -> None:
        with suppress(av.FFmpegError):
            av.open(io.BytesIO(trap.attacks["listen.sdp"]), timeout=1).close()

    careless = threading.Thread(target=read)
    careless.start()
    taken: list[str] = []
    while careless.is_alive() and not taken:
        taken = trap.taken()
    careless.join()

    assert str(trap.bait.udp) in taken


def test_a_careless_reader_follows_the_reference_of_a_movie(trap: Trap) -> None:
    path = trap.lay("alias-far.mov")
    trap.taken()

    with av.open(str(path), options={"enable_drefs": "1", "use_absolute_path": "1"}):
        pass

    assert trap.taken() == ["canary.mp4"]
