"""What chunks cost and gain: `python -m benchmarks.chunks [--seconds 32] [--runs 3]`.

The same ladder from the same source, interleaved: in one piece; in chunks of 16 s, one after the other in one process,
as a worker makes them (budget: CPU ≤ 1.03 ×, bytes ≤ 1.01 ×); and in two halves by two processes at once, beside one
half by one process alone (budget: 1.85 × the speed on two cores). A half alone is what a second process must not slow
down; the whole would mix in what a cut costs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.ladder import MEDIA, Measured, ours, run, source_of
from pipeline.media.probe import probe
from pipeline.tasks import Limits, to_json

CHUNK_S = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="", help="a 1080p file; by default Big Buck Bunny, looped and enlarged")
    parser.add_argument("--seconds", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = source_of(options.source, options.seconds, folder)
        media = probe(source, Limits(), lambda _: None)
        (folder / MEDIA).write_text(to_json(media))
        chunks = max(2, round(media.duration / CHUNK_S))
        contenders: dict[str, Callable[[Path], Measured]] = {
            "whole": lambda out: run([ours(source, out, [0], 1)]),
            "chunks": lambda out: run([ours(source, out, range(chunks), chunks)]),
            "two at once": lambda out: run([ours(source, out, [part], 2) for part in (0, 1)]),
            "first half": lambda out: run([ours(source, out, [0], 2)]),
            "second half": lambda out: run([ours(source, out, [1], 2)]),
        }
        runs: dict[str, list[Measured]] = {name: [] for name in contenders}
        sizes: dict[str, int] = {}
        for index in range(options.runs):
            for name, contend in contenders.items():
                out = folder / f"{index}-{name}"
                out.mkdir()
                runs[name].append(contend(out))
                sizes[name] = sum(path.stat().st_size for path in out.rglob("*.m4s"))
        _print(runs, sizes, float(media.duration), chunks)


def _print(runs: dict[str, list[Measured]], sizes: dict[str, int], seconds: float, chunks: int) -> None:
    whole, parts, both, first, second = runs.values()
    cpu = statistics.median(b.cpu_s / a.cpu_s for a, b in zip(whole, parts, strict=True))
    speed = statistics.median((a.wall_s + b.wall_s) / c.wall_s for a, b, c in zip(first, second, both, strict=True))
    print(f"{seconds:.1f} s of 1080p, pair by pair, medians of {len(whole)} runs")
    print(f"{chunks} chunks against one piece: CPU {cpu:.3f} ×, bytes {sizes['chunks'] / sizes['whole']:.4f} ×")
    print(f"two processes against one: {speed:.2f} × the speed")


if __name__ == "__main__":
    main()
