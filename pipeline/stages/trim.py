"""trim: the pieces that an edit plays beside the segments that are there (DESIGN §9).

From each cut to the nearest keyframe that all pictures have, frames are encoded again from the source, with the stored
recipe of each rung and in one decode; other GOPs of the segments that a cut divides are copied as bytes, and so are
frames of sound. Whatever is between the cuts is not touched, so the length of the video does not matter.

What is encoded and what is copied share one init segment and stand in one piece. Where the encoder of today writes
another init segment than some picture has, they are pieces of their own, in every picture alike, and players begin anew
at each seam.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

from pipeline.media import timeline as grid
from pipeline.media.cmaf import SegmentMuxer
from pipeline.media.codecs import VideoEncoder, h264, output_color
from pipeline.stages.contract import Input, Inputs, Outputs, Tick
from pipeline.stages.picture_pieces import PicturePieces
from pipeline.stages.pictures import Picture, Rendition, encode
from pipeline.stages.pieces import PieceFiles, Stored, size
from pipeline.stages.pulse import Pulse
from pipeline.stages.sound_pieces import sound_pieces
from pipeline.tasks import Rung, TrackCut, TrimFacts, TrimTask

_Run = tuple[int, int]
"""Output frames [first, end) that are encoded in one decode."""


def trim(task: TrimTask, inputs: Inputs, out: Outputs, tick: Tick) -> TrimFacts:
    """Make the pieces of the task.

    Raises `video_file_broken` where nothing of the picture can be decoded, and what `tick` raises.
    """
    pulse = Pulse(tick)
    pulse(0.0)
    runs = _runs(task)
    pieces = _picture_pieces(task, inputs, out)
    for run, share in _shares(runs):
        _encode(task, inputs["source"], pieces, run, pulse.between(*share))
    seams = _seams(task) if any(picture.own for picture in pieces) else []
    patches = {picture.cut.track: picture.patch(seams) for picture in pieces}
    for cut in task.cuts:
        if cut.kind == "audio":
            patches[cut.track] = sound_pieces(Stored(cut=cut, inputs=inputs), PieceFiles(out, cut), seams)
    pulse(1.0)
    return TrimFacts(
        patches=tuple(patches[cut.track] for cut in task.cuts),
        encoded=sum(end - first for first, end in runs),
        bytes=sum(map(size, patches.values())),
    )


def _runs(task: TrimTask) -> list[_Run]:
    around = ((task.first, task.kept[0]), (task.kept[1], task.end))
    return [(first, end) for first, end in around if first < end]


def _seams(task: TrimTask) -> list[Fraction]:
    """Where encoded frames meet stored ones, seconds."""
    low, high = task.kept
    meeting = [low] * (task.first < low < high) + [high] * (low < high < task.end)
    return [frame / task.timeline.rate for frame in meeting]


def _kept(task: TrimTask, cut: TrackCut) -> tuple[int, int]:
    """`TrimTask.kept` in ticks."""
    low, high = (round(frame * cut.timescale / task.timeline.rate) for frame in task.kept)
    return low, high


def _shares(runs: Sequence[_Run]) -> Iterator[tuple[_Run, tuple[float, float]]]:
    """Every run and its part of the progress."""
    total, done = sum(end - first for first, end in runs), 0
    for first, end in runs:
        yield (first, end), (done / total, (done + end - first) / total)
        done += end - first


def _picture_pieces(task: TrimTask, inputs: Inputs, out: Outputs) -> list[PicturePieces]:
    pictures = [Stored(cut=cut, inputs=inputs) for cut in task.cuts if cut.kind == "video"]
    own = [_own_init(task, stored) for stored in pictures]
    return [
        PicturePieces(stored, PieceFiles(out, stored.cut), _kept(task, stored.cut), own=init, apart=any(own))
        for stored, init in zip(pictures, own, strict=True)
    ]


def _own_init(task: TrimTask, stored: Stored) -> bytes | None:
    """The encoder's init segment, where frames are encoded and it is not the track's."""
    if not _runs(task):
        return None
    init = _muxer(_encoder(task, stored.cut), stored.cut, ()).init()
    return init if init != stored.init else None


def _encode(task: TrimTask, source: Input, pieces: Sequence[PicturePieces], run: _Run, pulse: Pulse) -> None:
    assert task.video is not None
    picture = Picture(source=source, video=task.video, timeline=task.timeline, seekable=task.seekable)
    encode(picture, [_rendition(task, track) for track in pieces], *run, pulse)


def _rendition(task: TrimTask, pieces: PicturePieces) -> Rendition:
    encoder = _encoder(task, pieces.cut)
    starts = [round(tick * task.timeline.rate / pieces.cut.timescale) for tick in pieces.encoded]
    pieces.expect(_muxer(encoder, pieces.cut, starts))
    keyframes = frozenset((*starts, *grid.keyframes(task.timeline)))
    return Rendition(rung=_rung(pieces.cut), encoder=encoder, files=pieces, keyframes=keyframes)


def _encoder(task: TrimTask, cut: TrackCut) -> VideoEncoder:
    assert task.video is not None
    return VideoEncoder(h264(_rung(cut), task.timeline, output_color(task.video)))


def _muxer(encoder: VideoEncoder, cut: TrackCut, boundaries: Sequence[int]) -> SegmentMuxer:
    return SegmentMuxer(kind="video", template=encoder.template, timescale=cut.timescale, boundaries=boundaries)


def _rung(cut: TrackCut) -> Rung:
    assert cut.rung is not None  # the workbench fills it in
    return cut.rung
