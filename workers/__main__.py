"""Entry point of `reelway` and of `python -m workers`.

An interrupt while the command still loads ends it quietly.
"""

from __future__ import annotations

import os
import signal


def main() -> None:
    signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(130))
    from workers.cli import main as command

    signal.signal(signal.SIGINT, signal.default_int_handler)
    command()


if __name__ == "__main__":
    main()
