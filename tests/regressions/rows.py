"""What is seen of each story in stock dramatiq and in ours: the rows of `test_pitfalls.py` and of the benchmark."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest.mock import patch

from redis_server import running_server

from regressions.ours import Ours
from regressions.stock import Stock
from regressions.stories import deaths, outages, replies, sharing
from regressions.world import Seen, World


@dataclass(frozen=True, kw_only=True)
class Row:
    """One known failure."""

    story: Callable[[World], Seen]
    stock: Seen
    """The trap, seen."""
    ours: Seen
    client: str = "url"
    """How stock dramatiq is connected (`Stock`)."""
    appendonly: bool = True
    """Whether stock dramatiq's Redis keeps a file of what it did, as ours always does."""

    @property
    def name(self) -> str:
        return self.story.__name__ + ("" if self.client == "url" else f" ({self.client}=)")

    @property
    def trap(self) -> str:
        """What goes wrong in stock dramatiq, in a sentence."""
        return (self.story.__doc__ or "").strip()

    def seen(self, world: str) -> Seen:
        """Live through the story in one of the `WORLDS`, on a Redis of its own."""
        appendonly = self.appendonly or world == Ours.name
        with quick(), running_server(appendonly=appendonly) as server:
            made = Ours(server) if world == Ours.name else Stock(server, client=self.client)
            with contextlib.closing(made):
                return self.story(made)


WORLDS = (Stock.name, Ours.name)

ROWS = (
    Row(
        story=outages.lost_retry,
        stock={"tries": 1, "done": False},
        ours={"tries": 2, "done": True},
    ),
    Row(
        story=outages.lost_retry,
        client="host",
        stock={"tries": 1, "done": False},
        ours={"tries": 2, "done": True},
    ),
    Row(story=outages.retry_held_through_a_restart, stock={"tries": 1}, ours={"tries": 2}),
    Row(
        story=outages.retry_held_through_a_stall,
        stock={"tries": 1, "all threads live": False},
        ours={"tries": 2, "all threads live": True},
    ),
    Row(story=outages.unacknowledged_in_a_stall, stock={"times done": 2}, ours={"times done": 1}),
    Row(story=outages.unacknowledged_when_full, stock={"times done": 2}, ours={"times done": 1}),
    Row(
        story=outages.kept_through_a_kill,
        appendonly=False,
        stock={"accepted": 50, "kept": 0},
        ours={"accepted": 50, "kept": 50},
    ),
    Row(story=replies.lost_reply_of_enqueue, stock={"times done": 2}, ours={"times done": 1}),
    Row(story=replies.lost_reply_of_enqueue, client="host", stock={"times done": 2}, ours={"times done": 1}),
    Row(story=replies.lost_reply_of_fetch, stock={"done": False}, ours={"done": True}),
    Row(story=replies.fetched_twice_over, stock={"threads": 2, "held": 7}, ours={"threads": 2, "held": 2}),
    Row(story=replies.trash_in_the_queue, stock={"sent": 6, "done": 1}, ours={"sent": 6, "done": 6}),
    Row(story=deaths.killed_worker, stock={"begun again by then": False}, ours={"begun again by then": True}),
    Row(story=deaths.killed_worker_and_a_busy_one, stock={"put back": False}, ours={"put back": True}),
    Row(
        story=deaths.poison,
        stock={"workers killed": 6, "ended": False},
        ours={"workers killed": 3, "ended": True},
    ),
    Row(
        story=deaths.zombie,
        stock={"effects by the zombie": 1, "in all": 2},
        ours={"effects by the zombie": 0, "in all": 1},
    ),
    Row(story=deaths.starved_heart, stock={"begun beside itself": True}, ours={"begun beside itself": False}),
    Row(story=deaths.clock_ahead, stock={"begun beside itself": True}, ours={"begun beside itself": False}),
    Row(
        story=sharing.hoarded_by_a_drain,
        stock={"sent": 20, "taken by the one that ends": 15},
        ours={"sent": 20, "taken by the one that ends": 0},
    ),
    Row(
        story=sharing.head_of_line,
        stock={"waited behind the long one": True},
        ours={"waited behind the long one": False},
    ),
    Row(story=sharing.longer_than_the_grace, stock={"begun elsewhere": False}, ours={"begun elsewhere": True}),
    Row(story=sharing.joined_too_early, stock={"too early": 1, "in all": 2}, ours={"too early": 0, "in all": 1}),
)


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Pauses after an error, dramatiq's (3 and 5 s) and ours (10 s), are short: nothing depends on their length."""
    with (
        patch("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 0.1),
        patch("dramatiq.worker.POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 0.1),
        patch("workers.redis_jobs.CLAIM_S", 0.5),
    ):
        yield
