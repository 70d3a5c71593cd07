"""How the picture's work is cut into steps: runs of segments × groups of rungs. Pure.

An asset is ready when the last worker is done, so a short video on many workers is cut finely, down to a segment of a
few rungs a step; and every step costs something of its own, so a long video on few workers is not. The fewest steps win
that are about as quick as the quickest cut. `benchmarks/fleet.py` measures what is assumed here.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.media import timeline
from pipeline.tasks import Blueprint, Rung

CHUNK_SEGMENTS = 4
"""Segments of a chunk where nothing speaks for shorter ones: 16 s cost about 1 % more CPU than a whole file."""
MAX_CHUNKS = 300
"""A long video gets longer chunks than that, where as many chunks keep every worker busy."""
MAX_STEPS = 1000
"""Whatever the size of the fleet: a job is one record."""
NEARLY = 1.03
"""A cut is about as quick as the quickest one up to here."""
DEARER = 1.5
"""What a quicker cut may cost more in all: every group of rungs decodes the source once again."""

Grouping = tuple[tuple[Rung, ...], ...]
"""The rungs of a chunk, as they are shared by steps."""

# Seconds of one core for a second of video and a million pixels, at the default preset (benchmarks/fleet.py); their
# ratio matters to the choice of a cut. Scaling reads the whole source picture once for every rung that is smaller.
_DECODE = 0.15
_SCALE = 0.11
_ENCODE = 0.43
STEP_S = 0.15
"""Of any step, however short: its process, its encoders, its first and last pictures, its commits."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A run of segments [first, last)."""

    first: int
    last: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one step makes: some rungs of a chunk."""

    name: str
    """`003`, and `003-1` where the rungs of the chunk are shared by several steps: names sort as the steps begin."""
    chunk: Chunk
    rungs: tuple[Rung, ...]


Split = tuple[Part, ...]
"""One way to share the picture's work: the parts in the order in which they begin, the first chunks first."""


def split(drawn: Blueprint, workers: int) -> Split:
    """The cut for a fleet that does `workers` steps at once. A source that cannot be seeked is one chunk."""
    candidates = [(each, [cost(drawn, part) for part in each]) for each in _candidates(drawn, workers)]
    cheapest = min(sum(costs) for _, costs in candidates)
    timed = [(makespan(costs, workers), each) for each, costs in candidates if sum(costs) <= DEARER * cheapest]
    quickest = min(seconds for seconds, _ in timed)
    nearly = ((len(each), seconds, each) for seconds, each in timed if seconds <= NEARLY * quickest)
    return min(nearly, key=lambda candidate: candidate[:2])[2]


def makespan(costs: Sequence[float], workers: int) -> float:
    """Seconds until the last of `workers` is done, when each takes the next step in order."""
    loads = [0.0] * min(workers, max(1, len(costs)))
    for cost in costs:
        heapq.heappushpop(loads, loads[0] + cost)
    return max(loads)


def cost(drawn: Blueprint, part: Part) -> float:
    """Seconds of one core for a part, decoding included."""
    decode = _DECODE * source_megapixels(drawn)
    return part.chunk.seconds * (decode + sum(_rung_cost(drawn, rung) for rung in part.rungs)) + STEP_S


def source_megapixels(drawn: Blueprint) -> float:
    """Million pixels of one picture of the source; 0 where there is none."""
    video = drawn.media.video
    return video.width * video.height / 1e6 if video else 0.0


def _rung_cost(drawn: Blueprint, rung: Rung) -> float:
    made, source = rung.width * rung.height / 1e6, source_megapixels(drawn)
    return _ENCODE * made + (_SCALE * source if made < source else 0.0)


def _candidates(drawn: Blueprint, workers: int) -> Iterator[Split]:
    """Chunks of every length, each whole or shared by groups of rungs; or only the last one shared."""
    bounds = (*timeline.segment_starts(drawn.timeline), drawn.timeline.frames)
    segments = len(bounds) - 1
    groupings = [_groups(drawn, count) for count in range(1, min(workers, len(drawn.rungs)) + 1)]
    for length in _lengths(segments, seekable=drawn.media.seekable):
        runs = [(at, min(at + length, segments)) for at in range(0, segments, length)]
        chunks = [
            Chunk(first=first, last=last, seconds=float((bounds[last] - bounds[first]) / drawn.timeline.rate))
            for first, last in runs
        ]
        for grouping in groupings:
            if len(chunks) * len(grouping) <= MAX_STEPS or len(grouping) == 1:
                yield _parts(chunks, [grouping] * len(chunks))
            if len(grouping) > 1 and len(chunks) > 1:
                yield _parts(chunks, [groupings[0]] * (len(chunks) - 1) + [grouping])


def _parts(chunks: Sequence[Chunk], groupings: Sequence[Grouping]) -> Split:
    return tuple(
        Part(name=f"{number:03d}" + (f"-{group}" if len(grouping) > 1 else ""), chunk=chunk, rungs=rungs)
        for number, (chunk, grouping) in enumerate(zip(chunks, groupings, strict=True))
        for group, rungs in enumerate(grouping)
    )


def _lengths(segments: int, *, seekable: bool) -> Sequence[int]:
    """Lengths of chunks that are worth a look, in segments."""
    if not seekable:
        return [segments]
    return range(max(1, -(-segments // MAX_STEPS)), max(CHUNK_SEGMENTS, -(-segments // MAX_CHUNKS)) + 1)


def _groups(drawn: Blueprint, count: int) -> Grouping:
    """The rungs in `count` groups of about the same cost; the costliest first."""
    groups: list[list[Rung]] = [[] for _ in range(count)]
    for rung in drawn.rungs:
        min(groups, key=lambda group: sum(_rung_cost(drawn, member) for member in group)).append(rung)
    return tuple(tuple(group) for group in groups if group)
