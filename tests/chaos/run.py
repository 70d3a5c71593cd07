"""Chaos: workers killed and frozen, Redis and S3 killed under them, and nothing lost (`make chaos`).

    PYTHONPATH=tests python tests/chaos/run.py [--form toy] [--form real] [--form stock] [--seed N] [--assets N] …

Prints the figures of each form as a table, side by side, and then as a line of JSON each. Exit code 1 where ours is not
clean. The same seed draws the same faults and the same work; when they meet is the machine's to decide.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path

from figures import Figures, show
from ours import Chaos
from stock import run_stock
from storm import Faults

FULL = {
    "toy": (100, Faults(kills=50, zombies=15, redis_kills=5, redis_pauses=2, s3_kills=2, s3_pauses=2)),
    "real": (20, Faults(kills=20, zombies=5, redis_kills=2, redis_pauses=1, s3_kills=1, s3_pauses=1)),
    "stock": (100, Faults(kills=50, zombies=15, redis_kills=5, redis_pauses=2, s3_kills=2, s3_pauses=2)),
}
"""Assets and faults of the full forms."""


def main() -> int:
    arguments = _arguments()
    seed = arguments.seed if arguments.seed is not None else random.randrange(10**6)
    print(f"seed {seed}", flush=True)
    runs = [_run(form, seed, arguments) for form in arguments.form or FULL]
    show(runs)
    for run in runs:
        print(run.json())
        print("\n".join(run.findings))
    return 0 if all(run.clean for run in runs if run.form != "stock") else 1


def _run(form: str, seed: int, arguments: argparse.Namespace) -> Figures:
    assets, faults = FULL[form]
    asked = {each.name: value for each in fields(Faults) if (value := getattr(arguments, each.name)) is not None}
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{form}-", dir=arguments.folder))
    print(f"{form}: logs in {folder}", flush=True)
    chaos = Chaos(
        form="real" if form == "real" else "toy",
        assets=arguments.assets or assets,
        faults=replace(faults, **asked),
        seed=seed,
        folder=folder,
        workers=arguments.workers,
        pace_s=arguments.pace,
    )
    if form == "stock":
        return run_stock(chaos)
    return chaos.run()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--form", action="append", choices=list(FULL), help="which run; again for more (all of them)")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--assets", type=int)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--pace", type=float, default=1.5, help="mean seconds between two faults")
    parser.add_argument("--folder", type=Path, help="where logs go (the system's temporary folder)")
    for each in fields(Faults):
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=int, dest=each.name)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
