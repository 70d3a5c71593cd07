"""What the ticket transport promises, and the traps of dramatiq 2.2 on Redis that it must not fall into."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.errors import ConnectionClosed
from redis_server import RedisServer, running_server

from pipeline.errors import PipelineError
from pipeline.job import Ref
from pipeline.memory import MemoryTickets
from pipeline.ports import Tickets
from workers.redis_client import connect
from workers.switchboard import SLOT, Switchboard
from workers.tickets import NAMESPACE, RedisTickets, Slots, TicketBroker, TicketConsumer

STAGES = ("ingest", "transcode", "audio", "package")
A = Ref(job="job-1", step="a")
PATIENCE_S = 20.0


class Process:
    """One worker process's transport: a broker with its slots and switchboard, and what its actors saw."""

    def __init__(self, server: RedisServer, *, slots: int = 1, timeout_s: float = 5.0) -> None:
        self.switchboard = Switchboard(server.client(0, timeout_s=timeout_s))
        self.slots = Slots(slots, freed=lambda: self.switchboard.ring(SLOT))
        self.broker = TicketBroker(
            server.url(1),
            slots=self.slots,
            switchboard=self.switchboard,
            client=server.client(1, timeout_s=timeout_s),
        )
        self.tickets = RedisTickets(self.broker, self.switchboard)
        self.seen: list[Ref] = []
        self.most_held = 0
        self.act: Callable[[Ref], None] = lambda _ref: None
        self.arrived = threading.Condition()
        for stage in STAGES:
            dramatiq.actor(actor_name=stage, queue_name=stage, broker=self.broker)(self._perform)

    def _perform(self, job: str, step: str) -> None:
        with self.arrived:
            self.seen.append(Ref(job=job, step=step))
            self.most_held = max(self.most_held, len(self.slots.held))
            self.arrived.notify_all()
        self.act(Ref(job=job, step=step))

    def consumer(self, stage: str = "transcode", *, timeout_s: float = 0.05) -> TicketConsumer:
        """A consumer that the test turns by hand."""
        made = self.broker.consume(stage, timeout=round(timeout_s * 1000))
        assert isinstance(made, TicketConsumer)
        return made

    @contextlib.contextmanager
    def working(self, threads: int) -> Iterator[None]:
        self.switchboard.start()
        assert self.switchboard.connected.wait(PATIENCE_S)
        worker = dramatiq.Worker(self.broker, worker_threads=threads, worker_timeout=50)
        worker.start()
        try:
            yield
        finally:
            self.slots.close()
            worker.stop()
            self.switchboard.stop()

    def wait_for(self, count: int) -> list[Ref]:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.seen) >= count, PATIENCE_S), self.seen
            return list(self.seen)

    def wait_for_step(self, step: str) -> None:
        """It came; once or twice, as tickets may."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: step in {ref.step for ref in self.seen}, PATIENCE_S), self.seen

    def close(self) -> None:
        self.broker.close()
        self.switchboard.client.close()


@pytest.fixture
def process(redis_server: RedisServer) -> Iterator[Process]:
    made = Process(redis_server)
    yield made
    made.close()


@pytest.fixture
def queues(redis_server: RedisServer) -> Iterator[Any]:
    """The broker's database, to look into and to put rubbish into."""
    with redis_server.client(1) as client:
        yield client


@pytest.fixture(params=["memory", "redis"])
def tickets(request: pytest.FixtureRequest) -> Tickets:
    if request.param == "memory":
        return MemoryTickets()
    process: Process = request.getfixturevalue("process")
    return process.tickets


def test_sent_tickets_wait_by_stage(tickets: Tickets) -> None:
    tickets.send(A, "transcode")
    tickets.send(A, "transcode")
    tickets.send(A, "audio")
    assert [tickets.waiting(stage) for stage in STAGES] == [0, 2, 1, 0]


def test_a_redis_that_is_away_is_a_coded_error() -> None:
    client = connect("unix:///nowhere/redis.sock")
    tickets = RedisTickets(TicketBroker("", client=client), Switchboard(client))
    with pytest.raises(PipelineError, match="queue_unavailable"):
        tickets.send(A, "transcode")
    with pytest.raises(PipelineError, match="queue_unavailable"):
        tickets.waiting("transcode")


# -- one consumer, turned by hand -------------------------------------------------------------------------------------


def test_a_ticket_carries_two_names_and_nothing_else(process: Process) -> None:
    process.tickets.send(A, "transcode")
    message = next(process.consumer())
    assert message is not None
    assert (message.actor_name, message.args, message.kwargs) == ("transcode", ("job-1", "a"), {})
    assert set(message.options) == {"redis_message_id"}


def test_an_acknowledged_ticket_is_gone(process: Process, queues: Any) -> None:
    process.tickets.send(A, "transcode")
    consumer = process.consumer()
    message = next(consumer)
    assert message is not None
    assert (process.tickets.waiting("transcode"), len(process.slots.held)) == (0, 1)
    consumer.ack(message)
    assert not process.slots.held
    assert queues.keys("*transcode*") == []


def test_a_process_with_one_slot_holds_one_ticket_of_all_its_queues(process: Process) -> None:
    for stage in STAGES:
        process.tickets.send(A, stage)
        process.tickets.send(A, stage)
    consumers = {stage: process.consumer(stage) for stage in STAGES}
    first = next(consumers["audio"])
    assert first is not None
    assert [next(consumer) for consumer in consumers.values()] == [None] * 4
    assert sum(process.tickets.waiting(stage) for stage in STAGES) == 7, "none was fetched ahead"
    consumers["audio"].nack(first)
    assert next(consumers["package"]) is not None
    assert next(consumers["ingest"]) is None


def test_a_process_that_is_told_to_stop_fetches_nothing(process: Process) -> None:
    process.tickets.send(A, "transcode")
    consumer = process.consumer()
    process.slots.close()
    assert next(consumer) is None
    assert process.tickets.waiting("transcode") == 1


def test_a_ticket_that_is_put_back_can_be_fetched_by_another(process: Process, redis_server: RedisServer) -> None:
    process.tickets.send(A, "transcode")
    consumer = process.consumer()
    message = next(consumer)
    assert message is not None
    consumer.requeue([message])
    assert not process.slots.held
    other = Process(redis_server)
    assert next(other.consumer()) is not None
    other.close()


def test_what_nobody_can_read_goes_to_the_dead_letters_and_strands_nobody(process: Process, queues: Any) -> None:
    """The stock consumer stranded what was fetched beside it; each of these, alone, can also kill a worker thread."""
    names: dict[str, Any] = {"queue_name": "transcode", "actor_name": "transcode"}
    good: dramatiq.Message[Any] = dramatiq.Message(**names, args=("j", "s"), kwargs={}, options={})
    rubbish = [
        b"not json",
        b"{}",
        b'{"queue_name": 1}',
        good.encode(),  # without an id of its own
        good.copy(queue_name="audio", options={"redis_message_id": "r4"}).encode(),
        good.copy(options={"redis_message_id": "r5", "eta": 4_000_000_000_000}).encode(),
    ]
    for number, text in enumerate(rubbish):
        queues.hset(f"{NAMESPACE}:transcode.msgs", f"r{number}", text)
        queues.rpush(f"{NAMESPACE}:transcode", f"r{number}")
        process.tickets.send(Ref(job="job-1", step=str(number)), "transcode")
    consumer, seen = process.consumer(timeout_s=0.0), []
    for _ in range(3 * len(rubbish)):
        if message := next(consumer):
            seen.append(message.args[1])
            consumer.ack(message)

    assert seen == ["0", "1", "2", "3", "4", "5"]
    assert not process.slots.held
    assert queues.zcard(f"{NAMESPACE}:transcode.XQ") == len(rubbish)
    assert queues.hlen(f"{NAMESPACE}:transcode.msgs") == 0


def test_a_ticket_whose_fetch_was_never_answered_is_reclaimed(process: Process) -> None:
    process.tickets.send(A, "transcode")
    process.broker.do_fetch("transcode", 1)  # fetched in this process's name; nobody got it
    assert process.tickets.waiting("transcode") == 0
    message = next(process.consumer())
    assert message is not None
    assert message.args == ("job-1", "a")


def test_a_new_consumer_leaves_what_is_held_alone(process: Process) -> None:
    process.tickets.send(A, "transcode")
    assert next(process.consumer()) is not None
    assert next(process.consumer()) is None
    assert process.tickets.waiting("transcode") == 0


def test_a_silent_redis_closes_the_connection_and_frees_the_slot() -> None:
    """TimeoutError is no ConnectionError: the stock consumer's thread died of it."""
    with running_server() as server:
        process = Process(server, timeout_s=0.2)
        consumer = process.consumer()
        process.tickets.send(A, "transcode")
        message = next(consumer)
        assert message is not None
        with server.paused():
            with pytest.raises(ConnectionClosed):
                consumer.ack(message)
            assert process.slots.held, "not acknowledged: not free"
        consumer.ack(message)
        with server.paused(), pytest.raises(ConnectionClosed):
            next(consumer)
        assert process.slots.reserve(0.0), "a fetch that failed holds no slot"
        process.close()


def test_a_full_redis_closes_the_connection(process: Process, queues: Any) -> None:
    process.tickets.send(A, "transcode")
    consumer = process.consumer()
    message = next(consumer)
    assert message is not None
    queues.config_set("maxmemory", 1)
    try:
        with pytest.raises(ConnectionClosed):
            consumer.ack(message)
    finally:
        queues.config_set("maxmemory", 0)
    consumer.ack(message)
    assert queues.hlen(f"{NAMESPACE}:transcode.msgs") == 0


def test_the_heart_beats_without_a_fetch(process: Process, queues: Any) -> None:
    process.broker.declare_queue("transcode")
    process.broker.do_noop("transcode")
    assert queues.zscore(f"{NAMESPACE}:__heartbeats__", process.broker.broker_id) is not None


def test_there_is_no_middleware_that_loses_messages_and_no_delay_queue(process: Process) -> None:
    assert process.broker.middleware == []
    assert process.broker.get_declared_delay_queues() == set()


# -- whole workers ----------------------------------------------------------------------------------------------------


def test_a_worker_does_what_is_sent_in_any_queue_and_holds_no_more_than_its_slots(redis_server: RedisServer) -> None:
    process = Process(redis_server, slots=2)
    refs = [Ref(job=stage, step=str(n)) for n in range(10) for stage in STAGES]
    for ref in refs:
        process.tickets.send(ref, ref.job)
    with process.working(threads=2):
        seen = process.wait_for(len(refs))
    assert sorted(map(str, seen)) == sorted(map(str, refs))
    assert process.most_held <= 2
    process.close()


def test_a_waiting_worker_is_woken_by_the_ticket_of_another_process(
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A consumer that never looks by itself finds them all: it was rung for."""
    monkeypatch.setattr("workers.tickets.LOOK_S", 1e9)
    process, sender = Process(redis_server), Process(redis_server)
    with process.working(threads=1):
        for n in range(20):
            sender.tickets.send(Ref(job="job-1", step=str(n)), "audio")
            process.wait_for(n + 1)
    process.close()
    sender.close()


def test_an_actor_that_raises_is_acknowledged_and_the_worker_goes_on(process: Process, queues: Any) -> None:
    def fail(_ref: Ref) -> None:
        raise RuntimeError("a bug")

    process.act = fail
    with process.working(threads=1):
        for n in range(3):
            process.tickets.send(Ref(job="j", step=str(n)), "transcode")
        process.wait_for(3)
    assert queues.hlen(f"{NAMESPACE}:transcode.msgs") == 0


def test_workers_go_on_after_redis_was_silent_and_after_it_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 0.1)
    monkeypatch.setattr("dramatiq.worker.POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 0.1)
    with running_server(appendonly=True) as server:
        process = Process(server, timeout_s=0.2)
        with process.working(threads=1):
            process.tickets.send(Ref(job="j", step="before"), "transcode")
            process.wait_for_step("before")
            failed = watch_failures(process)
            with server.paused():
                assert failed.wait(PATIENCE_S)
            send(process, Ref(job="j", step="after the silence"))
            process.wait_for_step("after the silence")
            failed = watch_failures(process)
            server.kill()
            assert failed.wait(PATIENCE_S)
            server.start()
            send(process, Ref(job="j", step="after the kill"))
            process.wait_for_step("after the kill")
        process.close()


def watch_failures(process: Process) -> threading.Event:
    """Set once a consumer's connection was closed."""
    failed = threading.Event()
    fetch = process.broker.client.execute_command

    def watched(*args: Any, **options: Any) -> Any:
        try:
            return fetch(*args, **options)
        except redis.RedisError:
            failed.set()
            raise

    process.broker.client.execute_command = watched  # type: ignore[method-assign]
    return failed


def send(process: Process, ref: Ref) -> None:
    """As the dispatcher does: again, until somebody takes it."""
    while True:
        try:
            process.tickets.send(ref, "transcode")
            return
        except PipelineError:
            continue
