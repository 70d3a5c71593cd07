"""Assets that are transcoded once and cut often, by the stage alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

from cuts import Appended, Stream, assert_exact, numbers
from running import Clip, Folder, ignored

from pipeline.presentation.cutting import cut
from pipeline.presentation.edits import insist_on_patches
from pipeline.presentation.model import Edit, Track
from pipeline.stages.contract import Tick
from pipeline.stages.transcode import transcode
from pipeline.stages.trim import trim
from pipeline.tasks import Part, Patch, Piece, Rung, Segment, TrackCut, TrimFacts, TrimTask

RUNGS = tuple(
    Rung(name=f"{height}p", width=width, height=height, crf=23, maxrate=rate, bufsize=2 * rate, preset="veryfast")
    for width, height, rate in ((160, 90, 400_000), (112, 64, 200_000))
)
"""So small that a thousand frames take a moment; everything else is as in the default profile."""


@dataclass(frozen=True, kw_only=True)
class Trimmed:
    """What the stage answered, and where its pieces lie."""

    facts: TrimFacts
    task: TrimTask
    root: Path
    asset: Asset

    def patch(self, track: str) -> Patch:
        return next(patch for patch in self.facts.patches if patch.track == track)

    def stream(self, track: Track) -> Stream:
        """The track as a player gets it: head, the stored segments between, tail."""
        patch = self.patch(track.id)
        between = [segment for segment in track.segments if patch.first <= segment.start < patch.last]
        stored = self.asset.whole(track, between)
        return [*self._pieces(track, patch.head), *stored, *self._pieces(track, patch.tail)]

    def _pieces(self, track: Track, made: Sequence[Piece]) -> Stream:
        return [
            Appended(
                init=(self.root / piece.init).read_bytes() if piece.init else self.asset.init(track.id),
                media=(self.root / piece.key).read_bytes(),
            )
            for piece in made
        ]

    def assert_exact(self) -> None:
        """Every rung shows exactly what was asked for, the sounds fit, and players can begin anew in all at once."""
        shown, asset = range(self.task.first, self.task.end), self.asset
        assert_exact(self.pictures, self.sounds, asset.numbers, shown, asset.clip.timeline, zero=asset.zero)
        rate = asset.clip.timeline.rate
        edit = Edit(start=shown.start / rate, end=shown.stop / rate, patches=self.facts.patches)
        insist_on_patches(self.task.asset, edit, asset.tracks)

    @property
    def pictures(self) -> list[Stream]:
        return [self.stream(track) for track in self.asset.tracks if track.kind == "video"]

    @property
    def sounds(self) -> list[Stream]:
        return [self.stream(track) for track in self.asset.tracks if track.kind == "audio"]


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A ladder and its sounds, whole, with its source."""

    clip: Clip
    root: Path
    tracks: tuple[Track, ...]
    rungs: dict[str, Rung] = field(default_factory=dict)

    def track(self, name: str) -> Track:
        return next(track for track in self.tracks if track.id == name)

    def init(self, track: str) -> bytes:
        return (self.root / track / "init.mp4").read_bytes()

    def media(self, track: str, segment: Segment) -> bytes:
        return (self.root / track / segment.key).read_bytes()

    @cached_property
    def numbers(self) -> list[int]:
        """What every frame of the uncut asset shows."""
        return numbers(self.whole(next(track for track in self.tracks if track.kind == "video")))

    def whole(self, track: Track, segments: Sequence[Segment] | None = None) -> Stream:
        """The uncut track as a player gets it, or these segments of it."""
        init, wanted = self.init(track.id), track.segments if segments is None else segments
        return [Appended(init=init, media=self.media(track.id, segment)) for segment in wanted]

    @property
    def zero(self) -> Fraction:
        """Where the first second of the clip's picture begins, seconds: in MPEG-TS a little sound comes before it."""
        video = self.clip.media.video
        return video.start - self.clip.timeline.start if video else Fraction(0)

    def task(self, first: int, end: int, **changes: Any) -> TrimTask:
        """As the workbench would ask for it; `changes` are fields of the rungs, as another build would have them."""
        timeline, divided = self.clip.timeline, cut(self.tracks, self.clip.timeline, first, end)
        return TrimTask(
            asset="testasset01",
            source="source",
            start=first / timeline.rate,
            stop=end / timeline.rate,
            timeline=timeline,
            video=self.clip.media.video,
            seekable=self.clip.media.seekable,
            first=first,
            end=end,
            kept=divided.kept,
            cuts=tuple(self._with_rung(each, changes) for each in divided.cuts),
        )

    def trim(self, root: Path, first: int, end: int, *, tick: Tick = ignored, **changes: Any) -> Trimmed:
        """Run the stage on output frames [first, end)."""
        task = self.task(first, end, **changes)
        facts = trim(task, self.inputs(task), Folder(root=root), tick)
        return Trimmed(facts=facts, task=task, root=root, asset=self)

    def inputs(self, task: TrimTask) -> dict[str, Path]:
        """What the workbench would fetch for it, and no more."""
        inputs = {} if task.kept == (task.first, task.end) else {"source": self.clip.path}
        for each in task.cuts:
            names = [f"{each.track}/{name}" for name in ("init.mp4", *(s.key for s in each.divided))]
            inputs |= {name: self.root / name for name in names if each.divided}
        return inputs

    def _with_rung(self, each: TrackCut, changes: dict[str, Any]) -> TrackCut:
        return replace(each, rung=replace(self.rungs[each.track], **changes)) if each.kind == "video" else each


def made_asset(clip: Clip, root: Path, rungs: Sequence[Rung] = RUNGS) -> Asset:
    """Transcode a clip, picture and sound."""
    parts: list[Part] = []
    if clip.media.video is not None:
        parts += transcode(clip.task(rungs), {"source": clip.path}, Folder(root=root), ignored).parts
    parts += [clip.audio(root, index).part for index in range(len(clip.media.audio))]
    tracks = tuple(_track(part, clip) for part in parts)
    return Asset(clip=clip, root=root, tracks=tracks, rungs={rung.track: rung for rung in rungs})


def _track(part: Part, clip: Clip) -> Track:
    return Track(
        id=part.track,
        kind=part.kind,
        codec=part.codec,
        timescale=part.timescale,
        init=part.init,
        segments=part.segments,
        frame_rate=clip.timeline.rate if part.kind == "video" else None,
        sample_rate=48_000 if part.kind == "audio" else None,
    )
