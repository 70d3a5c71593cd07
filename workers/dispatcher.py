"""The dispatcher moves what is ready to dramatiq: in every worker, and no more than the workers can take soon.

The order in which steps begin lies in the ready index, where it can still change; a queue of dramatiq is first come,
first served, so it is kept short.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import structlog

from pipeline.errors import PipelineError
from pipeline.job import Ref
from pipeline.ports import NO_QUOTAS, Agenda, Quotas, Tickets
from workers.switchboard import SLOT, Switchboard

AHEAD = 2
"""Tickets that may wait in a queue for each slot of this process: one begins while the next is fetched."""
LOOK_S = 1.0
"""How long a missed ring may go unnoticed."""
_BACK_OFF_S = 1.0

log = structlog.get_logger("reelway.dispatcher")


class Dispatcher:
    """Sends tickets for `stages`: by name, how many of its steps this process does at once.

    `quotas`: how many steps each organization may have under way in the whole fleet.
    """

    def __init__(
        self,
        store: Agenda,
        tickets: Tickets,
        switchboard: Switchboard,
        stages: Mapping[str, int],
        quotas: Quotas = NO_QUOTAS,
    ) -> None:
        self.store = store
        self.tickets = tickets
        self.switchboard = switchboard
        self.stages = dict(stages)
        self.quotas = quotas
        self._unsent: list[Ref] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def dispatch(self) -> int:
        """Move what there is room for; returns how many. Raises `queue_unavailable`; what was taken is sent later."""
        sent = self._send()
        rooms = {stage: AHEAD * slots - self.tickets.waiting(stage) for stage, slots in self.stages.items()}
        free = {stage: room for stage, room in rooms.items() if room > 0}
        if free:
            self._unsent += self.store.take(free, self.quotas)
        return sent + self._send()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True, name="dispatcher")
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self.switchboard.ring(SLOT)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _send(self) -> int:
        """Send what was taken. A ticket whose reply is lost is sent twice, which harms nobody."""
        sent = 0
        while self._unsent:
            ref = self._unsent[0]
            assert ref.stage is not None, "whoever takes a step is told its stage"
            self.tickets.send(ref, ref.stage)
            self._unsent.pop(0)
            sent += 1
        return sent

    def _worth_it(self) -> bool:
        """Nobody rang: has something been missed? One look at the figures, instead of one at every queue."""
        return bool(self._unsent) or any(queue.ready for queue in self.store.queues())

    def _run(self) -> None:
        topics = (SLOT, *self.stages)
        rung = True
        while not self._stopping.is_set():
            seen = self.switchboard.heard(*topics)
            try:
                if rung or self._worth_it():
                    self.dispatch()
            except PipelineError as error:
                log.warning("cannot dispatch", action="dispatch.failed", code=error.code, error=str(error))
                self._stopping.wait(_BACK_OFF_S)
                continue
            except Exception:
                log.exception("cannot dispatch", action="dispatch.failed")
                self._stopping.wait(_BACK_OFF_S)
                continue
            rung = self.switchboard.wait(seen, LOOK_S, *topics)
