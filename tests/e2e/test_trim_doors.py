"""Trims of every kind of source as a player meets them: through the HLS and the DASH door of the published asset.

With `TRIM_FULL` two hundred random cuts and more; without, seven of each kind of source, one of them with seams.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import islice, pairwise
from random import Random
from typing import Any

import pytest
from assets import publish_captions
from builders import a_profile
from cut_kinds import KINDS, random_cuts, told
from cuts import AAC_FRAME, assert_exact, numbers, wanted_frames, warnings
from makers import make_clip
from s3_server import S3Server
from shop import Diary, Shop
from viewer import Rendition, View, opening_number, through_dash, through_hls

from pipeline import keys
from pipeline.janitor import Janitor, Reason
from pipeline.job import Job
from pipeline.media.cues import Cue
from pipeline.memory import ManualClock
from pipeline.ports import Storage
from pipeline.presentation.publish import latest, named, version
from pipeline.recipes import Recipe, recipes
from pipeline.requests import ProcessRequest, RevertTrimRequest, RollBackRequest, TrimRequest
from pipeline.sandbox import Nursery
from pipeline.storage import open_storage
from pipeline.tasks import Timeline

FULL = bool(os.environ.get("TRIM_FULL"))
CUTS = 25 if FULL else 6
"""Of each kind of source."""
SEAMED = 4 if FULL else 1
"""Cuts of each kind of source whose pieces have an init segment of their own."""
ON_S3 = ("23.976 in MP4, B-frames", "VFR in Matroska, open GOPs")
ASSET = "tr1mmedtr1m"
WHOLE = 2
"""The version before any cut: the second one, which has captions."""
CUES = tuple(Cue(start_ms=ms, end_ms=ms + 1200, lines=(f"At {ms}",)) for ms in range(0, 9000, 1500))
FLAT = (640, 112)
"""Of this picture there are two rungs, and a frame of either is made in no time."""
TOLD = Fraction(1, 500_000)
"""Manifests tell seconds to the microsecond, and the difference of two may be off by two."""
TICK = Fraction(1, 48_000)

pytestmark = pytest.mark.slow


@dataclass(frozen=True, kw_only=True)
class Published:
    """An asset on a storage that remembers what happened to it."""

    shop: Shop
    storage: Diary
    processed: Job

    @property
    def timeline(self) -> Timeline:
        assert self.processed.blueprint is not None
        return self.processed.blueprint.timeline

    @cached_property
    def zero(self) -> Fraction:
        """Where the first second of the clip's picture begins: in MPEG-TS a little sound comes before it."""
        assert self.processed.blueprint is not None
        video = self.processed.blueprint.media.video
        assert video is not None
        return video.start - self.timeline.start

    @cached_property
    def whole(self) -> list[int]:
        """What every frame of the uncut asset shows."""
        first, *others = (numbers(each.stream) for each in self.looks()[0].of("video"))
        assert all(other == first for other in others)
        return first

    def looks(self) -> tuple[View, View]:
        return through_hls(self.storage, ASSET), through_dash(self.storage, ASSET)

    def trim(self, start: float | None, stop: float | None) -> Job:
        return self.shop.done(TrimRequest(asset_id=ASSET, start_time=start, end_time=stop))

    @property
    def version(self) -> int:
        found = latest(self.storage, ASSET)
        assert found is not None
        return found.version


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path_factory.mktemp("scratch"))
    nursery.start()
    yield nursery
    nursery.close()


@pytest.fixture(scope="module", params=KINDS)
def asset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Published:
    """One of each kind, processed by the library; two of them in a bucket."""
    kind, root = KINDS[request.param], tmp_path_factory.mktemp("asset")
    source = make_clip(root / f"clip.{kind.suffix}", **{**kind.made, "size": FLAT})
    url = (root / "out").as_uri()
    if request.param in ON_S3:
        server: S3Server = request.getfixturevalue("shared_s3")
        url = server.url(root.name)
    storage = Diary(open_storage(url))
    shop = Shop(storage, nursery)
    grid = {"segment_seconds": Fraction(kind.segment), "keyframe_seconds": Fraction(kind.keyframe)}
    shop.conductor.profiles = {"default": a_profile(resolutions=("240p", "360p"), **grid)}
    published = Published(
        shop=shop, storage=storage, processed=shop.done(ProcessRequest(asset_id=ASSET, url=str(source)))
    )
    publish_captions(storage, ASSET, CUES, language="en", name="English")
    video = published.processed.blueprint and published.processed.blueprint.media.video
    assert video
    assert bool(video.open_gop) == kind.open_gop
    assert video.constant == ("pts" not in kind.made)
    assert len(published.whole) == published.timeline.frames
    assert_whole(published.whole, published.timeline, kind.made.get("pts"), published.zero)
    return published


def assert_whole(whole: list[int], timeline: Timeline, times: Sequence[Fraction] | None, zero: Fraction) -> None:
    """Every frame of the source in its turn; of one whose rate varies, those of about the moment."""
    if times is None:
        # The first one is held where sound comes before it.
        held = len(whole) - len(set(whole))
        assert held == round(zero * timeline.rate)
        assert whole == [0] * held + list(range(len(set(whole))))
    else:
        later = [*times[1:], timeline.duration]
        for frame, number in enumerate(whole):
            assert times[number] <= (frame + 1) / timeline.rate
            assert later[number] > (frame - 1) / timeline.rate


def wanted(timeline: Timeline, seed: int) -> Iterator[tuple[float, float, range]]:
    """Cuts as people write them, every third as a player's clock shows them: at frames, to the microsecond."""
    random, written = Random(seed), random_cuts(timeline.duration, seed)
    while True:
        first, end = sorted(random.sample(range(timeline.frames + 1), 2))
        yield round(float(first / timeline.rate), 6), round(float(end / timeline.rate), 6), range(first, end)
        for start, stop in islice(written, 2):
            if shown := wanted_frames(start, stop, timeline):
                yield float(start), float(stop), shown


# -- what is shown ----------------------------------------------------------------------------------------------------


def test_a_cut_anywhere_is_shown_exactly_through_both_doors(asset: Published) -> None:
    for number, (start, stop, shown) in enumerate(islice(wanted(asset.timeline, asset.timeline.frames), CUTS)):
        with told(start, stop):
            asset.trim(start, stop)
            hls, _ = assert_shown(asset, shown)
            if number % 8 == 0:
                assert "".join(warnings(each.stream) for each in hls.renditions.values()) == ""


def test_a_cut_with_seams_is_shown_exactly_through_both_doors(
    asset: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another build of the encoder would write another init segment: players begin anew at each seam."""

    def others(*asked: Any) -> dict[str, Recipe]:
        known = recipes(*asked)
        return {
            id_: replace(each, rung=replace(each.rung, options=(("x264-params", "ref=4"),)))
            for id_, each in known.items()
        }

    monkeypatch.setattr("pipeline.patching.recipes", others)
    cuts = wanted(asset.timeline, asset.timeline.frames + 1)
    long = ((start, stop, shown) for start, stop, shown in cuts if len(shown) > 5 * asset.timeline.rate)
    for start, stop, shown in islice(long, SEAMED):
        with told(start, stop):
            job = asset.trim(start, stop)
            hls, _ = assert_shown(asset, shown)
            # Where both ends are keyframes nothing is encoded.
            assert (len(hls.of("video")[0].runs) > 1) == bool(job.steps["trim"].facts["encoded_frames"])


def assert_shown(asset: Published, shown: range) -> tuple[View, View]:
    """Both doors lead to these frames of the clip and no others, at their times, with the sound of the same moments."""
    hls, dash = asset.looks()
    assert hls.streams == dash.streams
    assert hls.lengths == dash.lengths
    pictures, sounds = hls.of("video"), hls.of("audio")
    assert (len(pictures), len(sounds)) == (2, 1)
    rate = asset.timeline.rate
    # Once for both: the bytes are the same.
    assert_exact(
        [each.stream for each in pictures],
        [each.stream for each in sounds],
        asset.whole,
        shown,
        asset.timeline,
        zero=asset.zero,
    )
    for view in (hls, dash):
        assert view.windows[0][0] == 0
        assert view.windows[-1][1] == view.seconds
        assert all(before[1] == after[0] for before, after in pairwise(view.windows))
        assert abs(view.seconds - len(shown) / rate) < TOLD
        for each in view.renditions.values():
            assert_in_time(each, view, shown.start / rate)
    assert len(hls.keyframes) == 2
    for each in hls.keyframes.values():
        assert_seekable(each, asset, shown)
    return hls, dash


def assert_in_time(rendition: Rendition, view: View, start: Fraction) -> None:
    """The player's clock says 0 at `start`, in every run, and the manifest tells where the segments lie."""
    slack = AAC_FRAME * TICK + TOLD if rendition.kind == "audio" else TOLD
    for each in rendition.fetched:
        assert each.clock is not None
        assert abs(each.clock - start) <= TICK
        assert abs(each.shown - each.begins) < slack
        assert abs(each.lasts - each.holds) < TOLD
    for run, (begins, ends) in zip(rendition.runs, view.windows, strict=True):
        assert abs(run[0].shown - begins) < slack
        assert abs(run[-1].shown + run[-1].holds - ends) < slack
    assert view.seconds - TOLD < rendition.seconds < view.seconds + 2 * slack


def assert_seekable(keyframes: Rendition, asset: Published, shown: range) -> None:
    """A viewer who seeks sees the frame of the moment."""
    assert abs(keyframes.seconds - len(shown) / asset.timeline.rate) < TOLD
    frames = [round(each.begins * asset.timeline.rate) for each in keyframes.fetched]
    assert frames[0] == 0
    seen = [opening_number(each.appended) for each in keyframes.fetched]
    assert seen == [asset.whole[shown.start + frame] for frame in frames]


# -- versions ---------------------------------------------------------------------------------------------------------


def test_versions_come_back_as_they_were_and_nothing_of_them_is_touched(asset: Published) -> None:
    """Trim, revert, another trim, roll back, and back again: nothing is made twice, and nothing goes."""
    rate, last = asset.timeline.rate, asset.timeline.frames
    one, other, everything = range(7, last - 9), range(last // 3, last // 2), range(last)
    made = {asset.version: manifests(asset)}
    held = contents(asset.storage)

    def step(what: Any, shown: range) -> tuple[str, ...]:
        """… after which these frames are shown, and whatever was there is there as it was."""
        before = asset.version
        asset.shop.done(what)
        assert asset.version == before + 1
        assert_shown(asset, shown)
        now = contents(asset.storage)
        assert held.items() <= now.items()
        held.update(now)
        made[asset.version] = manifests(asset)
        return made[asset.version]

    def trim(shown: range, id_: str) -> TrimRequest:
        return TrimRequest(
            id=id_, asset_id=ASSET, start_time=float(shown.start / rate), end_time=float(shown.stop / rate)
        )

    def revert(id_: str) -> RevertTrimRequest:
        return RevertTrimRequest(id=id_, asset_id=ASSET)

    trimmed = step(trim(one, "trim-1"), one)
    first = asset.version
    whole = step(revert("revert-1"), everything)
    cut = step(trim(other, "trim-2"), other)
    media = set(held)
    assert step(RollBackRequest(id="back-1", asset_id=ASSET, version=first), one) == trimmed
    assert step(revert("revert-2"), everything) == whole
    assert step(trim(other, "trim-3"), other) == cut
    assert step(RollBackRequest(id="back-2", asset_id=ASSET, version=WHOLE), everything) == whole
    assert manifests(asset, WHOLE)[:-2] == whole[:-2]
    assert len({trimmed, whole, cut}) == 3
    assert not [key for key in set(held) - media if key.endswith((".m4s", ".mp4"))], "nothing was made again"

    for number, texts in made.items():
        assert manifests(asset, number)[:-2] == texts[:-2], "what the version's own folder says stays"
    assert_untouched(asset.storage)
    swept = Janitor(asset.storage, asset.shop.store, lambda _: False, ManualClock(2**45), grace_s=0, receipts_s=0)
    assert {finding.reason for finding in swept.sweep()} <= {Reason.RECEIPT}
    assert_untouched(asset.storage)
    assert held.items() - contents(asset.storage).items() == set()


def manifests(asset: Published, number: int | None = None) -> tuple[str, ...]:
    """What playlists, captions and doors of a version say, but for its number and the digest that names its folder."""
    shown = version(asset.storage, ASSET, number or asset.version)
    assert shown is not None
    folder = shown.folder.removeprefix(keys.public(ASSET))
    stored = [each.key for each in asset.storage.list(shown.folder)]
    texts = [(key.removeprefix(shown.folder), asset.storage.get(key).decode()) for key in sorted(stored)]
    assert {name.rpartition(".")[2] for name, _ in texts} == {"m3u8", "vtt"}
    texts += [(key, asset.storage.get(key).decode()) for key in (keys.hls_door(ASSET), keys.dash_door(ASSET))]
    mark = re.compile(rf"{re.escape(shown.mark)}\b")
    return tuple(f"{name}\n" + mark.sub("the mark", text.replace(folder, "the folder/")) for name, text in texts)


def contents(storage: Storage) -> dict[str, str]:
    """Everything public but for the doors, which are rewritten."""
    doors = (keys.hls_door(ASSET), keys.dash_door(ASSET))
    found = (each.key for each in storage.list(keys.public(ASSET)) if each.key not in doors)
    return {key: hashlib.sha256(storage.get(key)).hexdigest() for key in found}


def assert_untouched(storage: Diary) -> None:
    """No object that any version names was written twice or deleted."""
    public = {each.key for each in storage.list(keys.public(ASSET))}
    for _, names in named(storage, ASSET):
        folders = tuple(name for name in names if name.endswith("/"))
        needed = {key for key in public if key.startswith(folders)} | {n for n in names if n.startswith(keys.PUBLIC)}
        needed -= set(folders)
        assert needed
        assert {storage.written[key] for key in needed} == {1}
        assert not [key for key in needed if key.startswith(tuple(storage.removed))]
