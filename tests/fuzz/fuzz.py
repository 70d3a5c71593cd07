"""Mutation fuzzing of ingest and of the first chunk, in real sandbox processes (`make fuzz`).

    PYTHONPATH=tests python tests/fuzz/fuzz.py [--count N] [--seed N] [--only NUMBER] [--folder DIR]

Prints the figures as a table, and findings with the number that makes the same mutant again. Exit code 1 for a death of
the worker's side, a hang, an error without a code, or something left behind. Crashes of the sandboxed process are
counted: they are what it is for.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from mutate import mutant
from seeds import make_seeds
from trials import Court, Verdict


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What became of all mutants."""

    seed: int
    verdicts: Sequence[Verdict]
    left: Sequence[str]
    """What stayed in the scratch folder."""
    descriptors: int
    """Open files of this process that were not there before."""

    @property
    def findings(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if not verdict.coded]

    @property
    def clean(self) -> bool:
        return not self.findings and not self.left and self.descriptors <= 0

    def show(self) -> None:
        outcomes = Counter((verdict.stage, verdict.outcome) for verdict in self.verdicts)
        for (stage, outcome), count in sorted(outcomes.items()):
            print(f"{stage:10} {outcome:32} {count:6}")
        slowest = max(self.verdicts, key=lambda verdict: verdict.seconds)
        largest = max(self.verdicts, key=lambda verdict: verdict.peak_bytes)
        crashes = [verdict for verdict in self.verdicts if verdict.crashed]
        print(
            f"{len(self.verdicts)} mutants of seed {self.seed}: {len(self.findings)} findings, {len(crashes)} crashes"
        )
        print(f"slowest {slowest.seconds:.1f} s ({slowest.name}), most memory {largest.peak_bytes / 1e6:.0f} MB")
        print(f"({largest.name}); left behind: {len(self.left)} files, {self.descriptors} open descriptors")
        for verdict in [*crashes, *self.findings]:
            print(f"{verdict.outcome} in {verdict.stage}: {verdict.name}\n    {verdict.detail[-600:]}")


def fuzz(numbers: Sequence[int], seed: int, folder: Path, *, at_once: int = 2, log: Path | None = None) -> Figures:
    """Every second mutant is read by a handle, as from a bucket; the others as a file."""
    seeds = make_seeds(folder / "seeds")
    with Court(folder / "scratch") as court, ThreadPoolExecutor(at_once) as several:
        court.nursery.child().close()  # what a nursery opens is open before we count
        before = len(os.listdir("/proc/self/fd"))

        def one(number: int) -> Verdict:
            name, content = mutant(seeds, seed, number)
            path = folder / name
            path.write_bytes(content)
            try:
                verdict = court.try_(path, served=number // len(seeds) % 2 == 1)
            finally:
                path.unlink()
            if log is not None:
                with log.open("a") as lines:
                    lines.write(json.dumps(asdict(verdict)) + "\n")
            return verdict

        verdicts = list(several.map(one, numbers))
        after = len(os.listdir("/proc/self/fd"))
        left = court.left
    return Figures(seed=seed, verdicts=verdicts, left=left, descriptors=after - before)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--only", type=int, help="this mutant alone")
    parser.add_argument("--log", type=Path, help="a line of JSON a mutant")
    parser.add_argument("--keep", type=Path, help="write the mutant of --only there")
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else random.randrange(10**6)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        if chosen.keep is not None:
            chosen.keep.write_bytes(mutant(make_seeds(Path(folder) / "seeds"), seed, chosen.only)[1])
        numbers = range(chosen.count) if chosen.only is None else [chosen.only]
        figures = fuzz(numbers, seed, Path(folder), at_once=os.cpu_count() or 1, log=chosen.log)
    figures.show()
    return 0 if figures.clean else 1


if __name__ == "__main__":
    sys.exit(main())
