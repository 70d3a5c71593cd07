"""Trims in a row on one asset: `python -m benchmarks.many_trims [--trims 10000] [--every 1000]`.

The real doorman, conductor, publication and tidying on a real redis-server and a folder; the pieces of each cut are a
few bytes, so what is measured is everything but media: CPU seconds of this process, whatever else the machine does.
Budget: the last hundred take no more than the first, and half as much again.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WINDOW = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trims", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=1_000, help="print a line for so many")
    asked = parser.parse_args()
    for folder in ("tests", "tests/contracts"):
        sys.path.insert(0, str(Path(__file__).parent.parent / folder))
    os.fsync = lambda _: None  # type: ignore[assignment] # the disk is not what is measured
    with tempfile.TemporaryDirectory() as folder:
        seconds = trimmed(Path(folder), asked.trims, asked.every)
    first, last = (statistics.median(part) for part in (seconds[:WINDOW], seconds[-WINDOW:]))
    print(
        f"first {WINDOW}: {first * 1000:.1f} ms a trim; last {WINDOW}: {last * 1000:.1f} ms; {last / first:.2f} times"
    )


def trimmed(root: Path, trims: int, every: int) -> list[float]:
    """CPU seconds of each trim, from its request until it is tidied."""
    from books import Books
    from front import ASSET, Front
    from redis_server import running_server
    from test_worlds_on_redis import RedisBooks, RedisClock

    with running_server() as server, server.client() as client:

        def books(clock: Any) -> Books:
            return RedisBooks(client, clock)

        front = Front(root / "storage", clock=RedisClock(client), books=books)
        front.ready()
        seconds: list[float] = []
        for number in range(1, trims + 1):
            begin = time.process_time()
            front.ask("trim", id=f"trim-{number}", asset_id=ASSET, start_time=number % 7, end_time=9)
            front.live(seconds=2)
            seconds.append(time.process_time() - begin)
            assert front.job(f"trim-{number}").status.ended
            if number % every == 0:
                print(f"{number:6d} trims: {statistics.median(seconds[-WINDOW:]) * 1000:.1f} ms each")
        return seconds


if __name__ == "__main__":
    main()
