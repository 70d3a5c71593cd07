"""A small world: workers, dispatcher, sweepers and callers around one store, with everything going wrong.

Every call of a port is a point where others may run, where the process may die, where the store may be away, and where
it may apply a commit and lose the reply. Time jumps, tickets get lost, doubled and reordered, workers go on after their
lease is gone. `World.run` makes trouble for a while, lets it pass, and waits for every job to end.

What must hold is checked in three places: `witness` after every single operation, `_settle_down` that everything ends,
and `history.check` over the event log.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

from actors import Actor, Crash, Stage
from books import Books, MemoryBooks
from builders import a_profile, a_request, some_ingest_facts
from history import check
from toyplans import ERRORS, PUBLISHERS, Choose, ToyPlan, ToyPlanner, a_plan
from witness import Witness

from pipeline.conductor import Answer, Attempt, Caption, Conductor, Published, Subtitled
from pipeline.document import Rendition
from pipeline.errors import PipelineError
from pipeline.job import Priority, Ref, Step
from pipeline.memory import ManualClock, MemoryJobStore
from pipeline.ports import Quotas
from pipeline.requests import ProcessRequest

T = TypeVar("T")
TROUBLE = 260
"""Choices before the faults stop."""
RETRY_FOR_S = 60.0
"""A conductor in a hurry: so that retries end both by their number and by their time."""
PATIENCE_S = 1600
"""A job that has not ended so long after the last fault never will: back-offs, leases and lost tickets take less."""
ORGANIZATIONS = ("large", "small")
QUOTAS = Quotas(default=3, by_organization={"small": 2})
PRIORITIES = (*[Priority.STANDARD] * 4, Priority.HIGH, Priority.BULK)
TICK_S = 4
"""Less than the silence that the store takes for an outage."""


class World:
    """One history. `conductor` and the store in `books` are the real ones, or mutants."""

    def __init__(
        self,
        choose: Choose,
        *,
        conductor: type[Conductor] = Conductor,
        clock: ManualClock | None = None,
        books: Callable[[ManualClock], Books] = lambda clock: MemoryBooks(MemoryJobStore(clock)),
    ) -> None:
        self.choose = choose
        self.clock = clock or ManualClock()
        self.books = books(self.clock)
        self.store = self.books.store
        self.plans: dict[str, ToyPlan] = {}
        self.tickets: list[Ref] = []
        self.promised: set[str] = set()
        """Jobs whose acceptance was confirmed to the caller."""
        self.now_running: Actor | None = None
        self.peaceful = False
        self.outage = 0
        """So many further calls of the store fail."""
        self._stage = Stage()
        self._crew: list[Actor] = []
        self._names = itertools.count(1)
        self._requests: list[ProcessRequest] = []
        fences = itertools.count(1)
        self.conductor = conductor(
            Witness(self),
            self.clock,
            ToyPlanner(self.plans),
            {"default": a_profile()},
            retry_for_s=RETRY_FOR_S,
            nonce=lambda: str(next(fences)),
            jitter=itertools.cycle((0.0, 0.7, 0.3)).__next__,
        )

    def run(self) -> dict[str, str]:
        """Live through it all. Returns the terminal event of every accepted job; raises where something must not be."""
        for body in (self._work, self._work, self._work, self._dispatch, self._sweep, self._sweep):
            self._spawn(body)
        try:
            self._ask()
            for _ in range(TROUBLE):
                self._disturb(self.choose(100))
            self._settle_down()
        finally:
            for actor in self._crew:
                actor.kill()
        ends = check(self.books.events(), {job: plan.steps for job, plan in self.plans.items()}, RETRY_FOR_S)
        assert self.promised <= ends.keys(), f"accepted and lost: {self.promised - ends.keys()}"
        return ends

    # -- what the world does to them ----------------------------------------------------------------------------------

    def _disturb(self, what: int) -> None:
        if what < 78:
            self._let_somebody_go_on()
        elif what < 80:
            self._crew[self.choose(len(self._crew))].kill()
        elif what < 82:
            self._stop_a_worker()
        elif what < 89:
            self._pass((1, 4, 8, 16, 32)[self.choose(5)])
        elif what < 91:
            self.clock.advance(6 + self.choose(15))
        elif what < 93:
            self._spoil_a_ticket()
        elif what < 94:
            self.outage = 1 + self.choose(6)
        elif what < 96:
            job = self._requests[self.choose(len(self._requests))].id
            if self.choose(6) == 0 or self._has_published(job):
                self._spawn(lambda me: self._cancel(me, job))
        elif what < 97:
            job = self._requests[self.choose(len(self._requests))].id
            how = self.choose(4)
            self._spawn(lambda me: self._meddle(me, job, how))
        elif what < 98:
            request = self._requests[self.choose(len(self._requests))]
            self._spawn(lambda me: self._request(me, request))
        else:
            self._ask()
        self._replace_the_dead()

    def _let_somebody_go_on(self) -> None:
        able = [actor for actor in self._crew if actor.awake() and actor.can_go_on()]
        if able:
            self._run(able[self.choose(len(able))], self.choose(100))

    def _pass(self, seconds: int) -> None:
        """Time passes while some other sweeper looks: no outage of the store."""
        for _ in range(0, seconds, TICK_S):
            self.clock.advance(min(seconds, TICK_S))
            self.store.due(0)

    def _stop_a_worker(self) -> None:
        """SIGSTOP, for longer than its lease: it wakes as a zombie, if it has not been killed meanwhile."""
        workers = [actor for actor in self._crew if actor.attempt is not None] or self._crew
        workers[self.choose(len(workers))].sleep(20 + self.choose(80))
        self._pass(16)

    def _spoil_a_ticket(self) -> None:
        if not self.tickets:
            return
        at = self.choose(len(self.tickets))
        if self.choose(2):
            self.tickets.append(self.tickets[at])
        else:
            del self.tickets[at]

    def _has_published(self, job_id: str) -> bool:
        """It is about to publish, or has: cancelling is refused, or gives up what is left."""
        job = self.store.job(job_id)
        return job is not None and any(step.exposed for step in job.steps.values())

    def _is_delivered(self, job_id: str) -> bool:
        job = self.store.job(job_id)
        return job is not None and job.delivered and not job.status.ended

    def _ask(self) -> None:
        """A caller asks for something new: another asset, or one that is taken."""
        if len(self._requests) >= 3:
            return
        number = len(self._requests) + 1
        asset = number if self.choose(5) else 1
        request = a_request(
            id=f"job-{number}",
            asset_id=f"asset{asset:06d}",
            organization=ORGANIZATIONS[self.choose(2)],
            priority=PRIORITIES[self.choose(len(PRIORITIES))],
        )
        self._requests.append(request)
        self.plans[request.id] = a_plan(self.choose)
        self._spawn(lambda me: self._request(me, request))

    def _settle_down(self) -> None:
        """No more faults but the fates: everything must end."""
        self.peaceful, self.outage = True, 0
        for _ in range(0, PATIENCE_S, TICK_S):
            self._exhaust()
            self._release_the_held()
            if self._at_rest():
                assert not self.books.out(), f"nobody is at work, and these count: {self.books.out()}"
                return
            self.clock.advance(TICK_S)
        raise AssertionError(f"never ended: {sorted(map(str, self.books.due()))}")

    def _release_the_held(self) -> None:
        """Whoever held a job may have been killed before it released it."""
        for request in self._requests:
            job = self.store.job(request.id)
            if job is not None and job.held and not job.status.ended:
                self._spawn(lambda me, job=request.id: self._meddle(me, job, 0))  # type: ignore[misc]

    def _exhaust(self) -> None:
        for round_ in range(2000):
            able = [actor for actor in self._crew if actor.can_go_on()]
            if not able:
                return
            for actor in able:
                self._run(actor, (round_ * 37 + 11) % 100)
            self._replace_the_dead()
        raise AssertionError("they run in circles")

    def _at_rest(self) -> bool:
        return not self.books.due()

    def _run(self, actor: Actor, luck: int) -> None:
        if not actor.ended:
            self.now_running = actor
            actor.go_on(luck)

    def _spawn(self, body: Callable[[Actor], None]) -> None:
        self._crew.append(Actor(self._stage, f"{body.__name__.strip('_<>')}-{next(self._names)}", body))

    def _replace_the_dead(self) -> None:
        """A machine that is gone comes back as another one; callers do not."""
        for actor in [actor for actor in self._crew if actor.ended]:
            self._crew.remove(actor)
            for body in (self._work, self._dispatch, self._sweep):
                if actor.name.startswith(body.__name__.strip("_")):
                    self._spawn(body)

    # -- what they do -------------------------------------------------------------------------------------------------

    def _request(self, me: Actor, request: ProcessRequest) -> None:
        try:
            accepted = _insist(me, lambda: self.conductor.accept(request))
        except PipelineError as error:
            if error.code != "asset_exists":  # the asset's id is taken
                raise
            return
        if accepted is not None:
            assert accepted.id == request.id
            self.promised.add(accepted.id)

    def _cancel(self, me: Actor, job: str) -> None:
        try:
            _insist(me, lambda: self.conductor.cancel(job))
        except PipelineError as error:
            if error.code != "asset_busy":
                raise

    def _meddle(self, me: Actor, job: str, how: int) -> None:
        """Released, held, or told to hurry or to wait."""
        change = (
            lambda: self.conductor.release(job),
            lambda: self.conductor.hold(job),
            lambda: self.conductor.prioritize(job, Priority.HIGH),
            lambda: self.conductor.prioritize(job, Priority.BULK),
        )[how]
        _insist(me, change)

    def _dispatch(self, me: Actor) -> None:
        while True:
            luck = me.pause(self._has_something_to_take)
            for ref in _insist(me, lambda luck=luck: self._take(1 + luck % 2)) or ():  # type: ignore[misc]
                me.pause()
                self.tickets.append(ref)

    def _take(self, room: int) -> Sequence[Ref]:
        return self.conductor.store.take({"ingest": 1, "work": room, "subtitle": 1}, QUOTAS)

    def _has_something_to_take(self) -> bool:
        """Of an organization that is not at its quota: a dispatcher that looks in vain would run in circles."""
        out = [spot.organization for spot in self.books.out().values()]
        return any(
            out.count(spot.organization) < self.quota_of(spot.organization) for spot in self.books.ready().values()
        )

    @staticmethod
    def quota_of(organization: str) -> int:
        quota = QUOTAS.by_organization.get(organization, QUOTAS.default)
        assert quota is not None
        return quota

    def _sweep(self, me: Actor) -> None:
        seen = 0
        while True:
            me.pause(lambda seen=seen: self.clock.time_ms != seen)  # type: ignore[misc]
            seen = self.clock.time_ms
            for ref in _insist(me, lambda: self.conductor.store.due(10)) or ():
                job = _insist(me, lambda ref=ref: self.conductor.sweep(ref))  # type: ignore[misc]
                if job is not None:
                    _insist(me, lambda job=job: self.conductor.tidied(job))  # type: ignore[misc]

    def _work(self, me: Actor) -> None:
        while True:
            luck = me.pause(lambda: bool(self.tickets))
            if not self.tickets:
                continue
            ref = self.tickets.pop(luck % len(self.tickets))
            if luck % 3 == 0 and self._is_delivered(ref.job):
                # Everything required is done: what is left is given up, or begun.
                self._spawn(lambda caller, ref=ref: self._cancel(caller, ref.job))  # type: ignore[misc]
            # Now and then the worker has no room for what it is given.
            wait = 3.0 if luck % 16 == 5 and not self.peaceful else None
            attempt = _insist(me, lambda ref=ref, wait=wait: self._begin(ref, me.name, wait))  # type: ignore[misc]
            if attempt is not None:
                me.attempt = attempt
                self._do(me, attempt)
                me.attempt = None

    def _begin(self, ref: Ref, worker: str, wait: float | None) -> Attempt | None:
        return self.conductor.begin(ref, worker, fits=lambda _job, _step: wait)

    def _do(self, me: Actor, attempt: Attempt) -> None:
        """One attempt, by a worker that does not always listen when it is told that it lost its lease."""
        conductor, step = self.conductor, attempt.step
        fate = self.plans[attempt.ref.job].fates[step.id]
        doomed = step.attempt <= fate.times
        for _ in range(me.pause() % 3):
            if _insist(me, lambda: conductor.renew(attempt)) is False and me.pause() % 2:
                return
        if doomed and fate.kind == "poison":
            me.attempt = None
            raise Crash
        if doomed and fate.kind in ERRORS:
            _insist(me, lambda: conductor.fail(attempt, PipelineError(ERRORS[fate.kind])))
            return
        if not self.peaceful and me.pause() % 12 == 0:
            _insist(me, lambda: conductor.hand_back(attempt))
            if me.pause() % 2:
                return
        if step.id in PUBLISHERS and me.pause() % 4 == 0:
            # The one moment when cancelling is a race.
            self._spawn(lambda caller: self._cancel(caller, attempt.ref.job))
        if step.id in PUBLISHERS and me.pause() % 4 == 1:
            # Said twice, as after a lost reply.
            _insist(me, lambda: conductor.publishing(attempt))
        if step.id in PUBLISHERS and not _insist(me, lambda: conductor.publishing(attempt)) and me.pause() % 3:
            return
        if doomed and fate.kind == "half":
            _insist(me, lambda: conductor.fail(attempt, PipelineError("storage_unavailable")))
            return
        finished = _insist(me, lambda: conductor.finish(attempt, _answer(step)))
        if finished and me.pause() % 4 == 0:
            assert not _insist(me, lambda: conductor.finish(attempt, _answer(step))), "finished twice"


def _answer(step: Step) -> Answer:
    if step.id == "ingest":
        return Answer(facts={"size": 4096}, ingest=some_ingest_facts(), source="private/clip.mp4")
    if step.id not in PUBLISHERS:
        return Answer(facts={"made": step.id})
    rendition = Rendition(name=f"video-{step.id}", kind="video", codec="avc1.64001f", bandwidth=1, bytes=1)
    caption = Caption(id="text-en-auto", name="English", language="en", key="transcoded/a/subtitles/text-en-auto/0.vtt")
    return Answer(
        published=Published(version=1, duration_ms=10_000, segments=3, renditions=(rendition,), captions=(caption,)),
        subtitled=Subtitled(track=caption.id) if step.stage == "subtitle" else None,
    )


def _insist(me: Actor, call: Callable[[], T]) -> T | None:
    """Try again where the store was away, once or twice; None: given up, without knowing whether it happened."""
    for _ in range(3):
        try:
            return call()
        except PipelineError as error:
            if error.params.get("reason") != "injected":
                raise
            if me.pause() % 2:
                break
    return None
