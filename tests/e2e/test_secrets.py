"""No secret is found anywhere but where it belongs: not when all goes well, and not on thirteen ways to fail.

One fleet for all of them: a real worker at debug level, a Redis with a password, a bucket, a web server. What is looked
at: every key of every Redis database, every object, the log, the scratch folder and its cores, the metrics, what the
commands and `reelway events tail` say, the arguments of every process, the environments of the stages.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import traitor
from canaries import Canaries, Places, Watch, descendants, watching
from makers import make_clip
from needs import Require
from prometheus_client import CollectorRegistry, Counter, start_http_server
from redis_server import RedisServer, running_server
from s3_server import CREDENTIALS, S3Server, free_ports, running_s3
from waiting import wait_until
from web_server import Request, Web, running_web

from pipeline.job import Job
from pipeline.requests import STREAM, ProcessRequest
from workers.client import Client
from workers.commands.fleet import doorman
from workers.embedded import end, leashed
from workers.redis_jobs import RedisJobStore
from workers.settings import Settings
from workers.wiring import Control, control

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0
RAW = b"c4nary+of the/seal key, all of it"[:32]
CANARIES = Canaries(
    {
        "storage's secret": "c4nary+of/the=storage",
        "wrong storage's secret": "c4nary+of/no=storage",
        "session token": "c4nary+of/the=session",
        "password of Redis": "c4nary+of/the=queue",
        "seal key": base64.b64encode(RAW).decode(),
        "opened seal key": RAW.decode(),
        "wrong seal key": base64.b64encode(RAW[::-1]).decode(),
        "signature of a source": "c4naryOfTheSignature",
        "token of a source": "c4nary+of/the=token",
        "user of a URL": "c4naryOfTheUser",
        "redirect": "c4nary+of/the=redirect",
        "source bucket's secret": "c4naryOfAnotherBucket",
        "wrong setting": "c4naryOfASetting",
    }
)
SECRET: Mapping[str, str] = CANARIES.secrets
QUERY = f"X-Amz-Signature={SECRET['signature of a source']}&token={SECRET['token of a source']}"

SHELL = """
import json, os, sys
answers = os.fdopen(os.dup(1), "w")
for words, environment in map(json.loads, sys.stdin):
    said = os.open(os.environ["SAID"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1), os.dup2(said, 2)
    before = dict(os.environ)
    os.environ.update(environment)
    from workers.cli import main
    sys.argv = ["reelway", *words]
    code = 0
    try:
        main()
    except SystemExit as left:
        code = left.code or 0
    except BaseException:
        import traceback
        traceback.print_exc()
    sys.stdout.flush()
    os.environ.clear()
    os.environ.update(before)
    answers.write(f"{code}\\n")
    answers.flush()
"""
"""Many commands in one process, as starting each takes longer than doing it."""

KILLED = """
import os, signal, pipeline.upload_start as start
from workers import uploading
start._PART_BYTES = 5 * start.MIB
put = uploading._put
def dying(url, body):
    put(url, body)
    os.kill(os.getpid(), signal.SIGKILL)
uploading._put = dying
from workers.cli import main
main()
"""


@dataclass(kw_only=True)
class House:
    """The fleet, and who asks it."""

    redis: RedisServer
    s3: S3Server
    web: Web
    folder: Path
    environment: Mapping[str, str]
    wired: Control
    places: Places
    gate: threading.Event
    """Closed, a film does not come to its end."""
    worker: subprocess.Popen[bytes]
    shell: subprocess.Popen[bytes]
    watch: Watch
    stack: ExitStack
    known: set[str] = field(default_factory=set)

    def url(self, path: str) -> str:
        return f"{self.web.url}{path}?{QUERY}"

    def send(self, asset: str, path: str = "", **fields: Any) -> Job:
        said = {"type": "asset.process", "asset_id": asset, "url": self.url(path), **USUAL, **fields}
        return self.job(Client(self.redis.url()).submit(said, wait_s=PATIENCE_S).jobs[0])

    def job(self, id_: str) -> Job:
        job = self.wired.store.job(id_)
        assert job is not None
        return job

    def ended(self, job: Job) -> str:
        """What became of it: a code, or `succeeded`; once everything that belongs to it was tidied."""
        wait_until(lambda: self.job(job.id).status.ended)
        wait_until(lambda: not self.wired.store.scheduled(1))
        now = self.job(job.id)
        return str(now.error["code"]) if now.error else now.status.value

    def troubled(self, job: Job) -> str:
        """Why ingest has to be tried again; then nobody waits for that any longer."""
        wait_until(lambda: self.job(job.id).steps["ingest"].retries)
        code = str((self.job(job.id).steps["ingest"].error or {})["code"])
        self.say("cancel", job.asset)
        self.ended(job)
        return code

    def say(self, *words: str, **environment: str) -> int:
        """`reelway …`; what it answers goes to a file in the folder. Returns its exit code."""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        self.shell.stdin.write(json.dumps([words, environment]).encode() + b"\n")
        self.shell.stdin.flush()
        return int(self.shell.stdout.readline())

    def look(self, asset: str) -> None:
        """Everything that a person may ask about an asset."""
        for words in (["status"], ["history"], ["dead", "show"]):
            self.say(*words, asset)
            self.say(*words, asset, "--json")
        self.say("why", asset)

    def follow(self) -> None:
        """Let somebody read the events, which ends with Redis."""
        words = ["-m", "workers", "events", "tail", "--from", "0", "--json"]
        self.stack.enter_context(started(words, self.environment, self.folder / "tail.log"))

    def followed(self) -> bool:
        """Whoever reads the events has read the last one."""
        newest: Any = self.wired.redis.xrevrange("reelway:events", count=1)
        last = [json.loads(next(iter(entry.values())))["id"] for _, entry in newest]
        heard = (self.folder / "tail.log").read_text()
        return all(each in heard for each in last)

    def run(self, program: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """A command in a process of its own."""
        return subprocess.run(
            [sys.executable, "-c", program, *map(str, words)],
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    @property
    def log(self) -> str:
        return (self.folder / "worker.log").read_text()

    def finds(self) -> set[str]:
        """Where there is a secret that was not there the last time."""
        assert self.worker.poll() is None, "the worker lives"
        wait_until(self.followed)
        new = {*self.places.finds(CANARIES), *self.watch.found} - self.known
        self.known |= new
        return new


USUAL = {"profile": "fast", "resolutions": "240p"}


# -- the house --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory, require: Require) -> Iterator[S3Server]:
    """A bucket whose secret is a canary."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CREDENTIALS, "AWS_SECRET_ACCESS_KEY", SECRET["storage's secret"])
        with running_s3(tmp_path_factory.mktemp("secrets-s3"), require) as server:
            yield server


@pytest.fixture(scope="module")
def house(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    gate = threading.Event()
    with ExitStack() as stack:
        redis = stack.enter_context(running_server(appendonly=True, password=SECRET["password of Redis"]))
        web = stack.enter_context(running_web(answers(film(folder), gate)))
        stack.callback(gate.set)
        (port,) = free_ports(1)
        environment = surroundings(redis, s3.url("secrets"), folder) | {"REELWAY_METRICS_PORT": str(port)}
        worker = stack.enter_context(started([str(ROOT / "tests/traitor.py")], environment, folder / "worker.log"))
        watch = stack.enter_context(watching(worker.pid, CANARIES))
        wired = control(Settings.read(redis_url=redis.url(), storage_url=s3.url("secrets")))
        places = Places(
            redis=redis, storage=wired.storage, folder=folder, metrics_url=f"http://127.0.0.1:{port}/metrics"
        )
        shell = stack.enter_context(a_shell(environment, folder))
        house = House(
            redis=redis,
            s3=s3,
            web=web,
            folder=folder,
            environment=environment,
            wired=wired,
            places=places,
            gate=gate,
            worker=worker,
            shell=shell,
            watch=watch,
            stack=stack,
        )
        house.follow()
        yield house


def surroundings(redis: RedisServer, storage_url: str, folder: Path) -> dict[str, str]:
    """The environment of a worker, with all of its secrets."""
    (folder / "scratch").mkdir(exist_ok=True)
    (folder / "said").touch()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("REELWAY_")}
    return inherited | {
        "COLUMNS": "300",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "REELWAY_REDIS_URL": redis.url(),
        "REELWAY_STORAGE_URL": storage_url,
        "REELWAY_SEAL_KEY": SECRET["seal key"],
        "REELWAY_SCRATCH_DIR": str(folder / "scratch"),
        "REELWAY_SOURCE_ALLOW": "127.0.0.1",
        "REELWAY_SOURCE_PORTS": "any",
        "REELWAY_LOG_LEVEL": "debug",
        "REELWAY_GRACE_S": "0",
        "SAID": str(folder / "said"),
        "XDG_STATE_HOME": str(folder / "state"),
    }


@contextmanager
def started(words: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours, in the folder of its log, where its core would fall."""
    with log.open("ab") as file:
        process = leashed([sys.executable, *words], env=environment, cwd=log.parent, stdout=file, stderr=file)
    try:
        yield process
    finally:
        end(process, grace_s=10)


@contextmanager
def a_shell(environment: Mapping[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    (folder / "shell.py").write_text(SHELL)
    with subprocess.Popen(
        [sys.executable, str(folder / "shell.py")],
        env=environment,
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as shell:
        try:
            yield shell
        finally:
            shell.kill()


def film(folder: Path) -> bytes:
    return make_clip(folder / "film.mp4", seconds=1).read_bytes()


def answers(clip: bytes, gate: threading.Event) -> Callable[[Request], None]:
    """A server that wants a signature or the word of a redirect, and tells whoever fails what they asked for."""

    def answer(request: Request) -> None:
        path, _, query = request.path.partition("?")
        if query not in (QUERY, f"hop={SECRET['redirect']}"):
            request.reply(status=403)
        elif path == "/moved.mp4":
            request.reply(status=302, location=f"{path.replace('moved', 'film')}?hop={SECRET['redirect']}")
        elif path == "/away.mp4":
            request.reply(status=302, location=f"http://10.0.0.1/?{query}&hop={SECRET['redirect']}")
        elif path == "/film.mp4":
            request.reply(clip)
        elif path == "/slow.mp4":
            request.head(headers={"Content-Length": len(clip)})
            request.send(clip[:1000])
            gate.wait(PATIENCE_S)
            request.send(clip[1000:])
        elif path == "/broken.mp4":
            request.head(headers={"Content-Length": len(clip)})
            request.send(clip[:1000])
            request.reset()
        elif path == "/page.mp4":
            request.reply(f"<html>you asked for {request.path}</html>".encode() * 10)
        elif begins := {"/betray.mp4": traitor.BETRAY, "/crash.mp4": traitor.CRASH, "/wait.mp4": traitor.WAIT}.get(
            path
        ):
            request.reply(begins + clip)
        else:
            request.reply(f"there is no {request.path}".encode(), status=404)

    return answer


# -- what may happen --------------------------------------------------------------------------------------------------


def all_goes_well(house: House, asset: str) -> str:
    """By way of a redirect that has a secret of its own."""
    job = house.send(asset, "/moved.mp4")
    told = house.ended(job)
    for words in (["doctor", "--json"], ["dead", "ls", "--json"], ["queues", "ls"]):
        house.say(*words)
    assert [path for path in (request.path for request in house.web.requests) if SECRET["redirect"] in path]
    return told


def there_is_nothing(house: House, asset: str) -> str:
    return house.ended(house.send(asset, "/none.mp4"))


def the_connection_breaks(house: House, asset: str) -> str:
    return house.troubled(house.send(asset, "/broken.mp4"))


def it_is_another_file(house: House, asset: str) -> str:
    return house.ended(house.send(asset, "/page.mp4"))


def a_redirect_leads_inside(house: House, asset: str) -> str:
    return house.ended(house.send(asset, "/away.mp4"))


def the_storage_refuses_us(house: House, asset: str) -> str:
    """A second fleet, whose credentials are wrong."""
    wrong = {
        "AWS_SECRET_ACCESS_KEY": SECRET["wrong storage's secret"],
        "AWS_SESSION_TOKEN": SECRET["session token"],
    }
    log = house.folder / "refused.log"
    with running_server(password=SECRET["password of Redis"]) as redis:
        environment = {**house.environment, **wrong, "REELWAY_REDIS_URL": redis.url(), "REELWAY_METRICS_PORT": "0"}
        with redis.client() as client, started(["-m", "workers.main"], environment, log):
            job = accepted(redis, house, asset, SECRET["seal key"])
            wait_until(lambda: "step.failed" in log.read_text())
            assert house.say("history", asset, **wrong) == 1
            assert house.say("doctor", "--storage", house.s3.url("secrets"), **wrong) == 1
            failed = RedisJobStore(client).job(job)
        places = Places(redis=redis, storage=house.wired.storage, folder=house.folder)
        assert CANARIES.in_all(places.records()) == []
    assert failed is not None
    return str((failed.steps["ingest"].error or {})["code"])


def accepted(redis: RedisServer, house: House, asset: str, seal_key: str) -> str:
    """A job that was let in by somebody who seals with this key; returns its id."""
    settings = Settings.read(redis_url=redis.url(), storage_url=house.s3.url("secrets"), seal_key=seal_key)
    said = {"asset_id": asset, "url": house.url("/film.mp4"), **USUAL}
    return doorman(control(settings)).handle(ProcessRequest.model_validate(said))[0]


def the_storage_is_away(house: House, asset: str) -> str:
    job = slow(house, asset)
    house.s3.kill()
    house.gate.set()
    wait_until(lambda: house.job(job.id).steps["ingest"].retries)
    code = str((house.job(job.id).steps["ingest"].error or {})["code"])
    house.s3.start()
    assert house.ended(job) == "succeeded"
    return code


def redis_is_away(house: House, asset: str) -> str:
    job = slow(house, asset)
    written = len(house.log)
    house.redis.kill()
    house.gate.set()
    wait_until(lambda: "queue_unavailable" in house.log[written:] or "ConnectionError" in house.log[written:])
    house.redis.start()
    house.follow()
    return house.ended(job)


def slow(house: House, asset: str) -> Job:
    """A job whose film has begun to come."""
    house.gate.clear()
    before = len(house.web.requests)
    job = house.send(asset, "/slow.mp4")
    wait_until(lambda: len(house.web.requests) > before)
    return job


def a_stage_is_killed(house: House, asset: str) -> str:
    job = house.send(asset, "/wait.mp4")
    (nursery,) = descendants(house.worker.pid)[:1]
    wait_until(lambda: descendants(nursery) and house.job(job.id).steps["ingest"].attempt)
    house.watch.once()
    for child in descendants(nursery):
        os.kill(child, signal.SIGKILL)
    return house.troubled(job)


def a_stage_crashes(house: House, asset: str) -> str:
    return house.ended(house.send(asset, "/crash.mp4"))


def a_stage_raises_all_it_knows(house: House, asset: str) -> str:
    told = house.ended(house.send(asset, "/betray.mp4"))
    assert "all that I know" in house.log, "with its traceback"
    return told


def the_seal_has_another_key(house: House, asset: str) -> str:
    return house.troubled(house.job(accepted(house.redis, house, asset, SECRET["wrong seal key"])))


def a_request_is_poison(house: House, _asset: str) -> str:
    url, key = house.url("/film.mp4"), SECRET["source bucket's secret"]
    told: list[dict[str, Any]] = [
        {"url": url, "bogus": url},
        {"url": [url]},
        {"url": url, "profile": url},
        {"url": f"http://user:{SECRET['user of a URL']}@127.0.0.1/film.mp4"},
        {"url": f"http://{SECRET['user of a URL']}@127.0.0.1/film.mp4"},
        {"url": f"s3://AKIA:{key}@films/a.mp4"},
        {"url": f"s3://films/a.mp4?AWSAccessKeyId=AKIA&Signature={key}"},
        {"url": f"s3://films/a.mp4?endpoint=http://AKIA:{key}@127.0.0.1:1"},
        {"url": f"http://127.0.0.1:http/{key}/../?{QUERY}"},
        {"id": url, "asset_id": url, "url": url},
    ]
    before = house.wired.redis.xlen("reelway:events")
    for body in (*(json.dumps({"type": "asset.process", **each}) for each in told), f"no JSON {url}"):
        house.wired.redis.xadd(STREAM, {"request": body})
    wait_until(lambda: house.wired.redis.xlen(STREAM) == 0)
    wait_until(lambda: not house.wired.store.scheduled(1))
    assert house.wired.redis.xlen("reelway:events") >= before + len(told), "each was refused, or failed"
    return "refused"


def an_upload_is_interrupted(house: House, asset: str) -> str:
    source = house.folder / "upload.mp4"
    source.write_bytes((house.folder / "film.mp4").read_bytes() + bytes(21 * 1024**2))
    done = house.run(KILLED, "upload", source, "--id", asset)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (house.folder / "upload.said").write_text(done.stdout + done.stderr)
    listed = house.run("from workers.cli import main; main()", "uploads", "ls", "--json").stdout
    (house.folder / "uploads.said").write_text(listed)
    (begun,) = map(json.loads, listed.splitlines())
    parts = house.run("from workers.cli import main; main()", "uploads", "parts", begun["id"], "--json").stdout
    assert CANARIES.within(parts.encode()) == ["signature"], "this command alone tells it; that is what it is for"
    assert house.say("uploads", "complete", begun["id"]) == 1, "a part is missing"
    assert house.say("upload", str(source), "--resume", begun["id"], "--wait", "--json") == 0
    source.unlink()  # which is the owner's, and long to look through
    return house.ended(house.job(next(house.wired.store.jobs(asset))))


def a_setting_is_wrong(house: House, asset: str) -> str:
    """Each is refused in words, without a traceback; two of them to a worker as well."""
    told = SECRET["wrong setting"]
    wrong = [
        ("STORAGE_URL", f"s3://AKIA:{told}@bucket"),
        ("STORAGE_URL", f"s3://bucket?endpoint=http://AKIA:{told}@127.0.0.1:1"),
        ("STORAGE_URL", f"s3://bucket?endpoint=AKIA:{told}@127.0.0.1"),
        ("STORAGE_URL", f"s3://AKIA:{told}@bucket\u2100"),
        ("STORAGE_URL", f"https://AKIA:{told}@[bucket"),
        ("REDIS_URL", f"redis://:{told}@127.0.0.1:port"),
        ("REDIS_URL", f"redis://:{told}@127.0.0.1\u2100:1"),
        ("REDIS_URL", f"http://:{told}@127.0.0.1"),
        ("SEAL_KEY", told),
        ("SOURCE_BUCKETS", f"s3://AKIA:{told}@bucket"),
        ("SOURCE_BUCKETS", f"s3://bucket?endpoint=http://AKIA:{told}@127.0.0.1:1"),
        ("SOURCE_ALLOW", f"http://user:{told}@10.0.0.0/8"),
        ("PUBLIC_BASE_URL", f"https://user:{told}@cdn.example"),
    ]
    for name, value in wrong:
        before = len((house.folder / "said").read_bytes())
        assert house.say("status", asset, **{f"REELWAY_{name}": value})
        said = (house.folder / "said").read_bytes()[before:].decode()
        assert "_invalid: " in said, (name, value)
        assert "Traceback" not in said, (name, value)
    for name, value in (wrong[1], wrong[5]):
        log = house.folder / "wrong.log"
        with started(["-m", "workers.main"], {**house.environment, f"REELWAY_{name}": value}, log) as worker:
            assert worker.wait(PATIENCE_S) == 1
        assert "_invalid" in log.read_text()
        assert "Traceback" not in log.read_text()
    # A password that Redis does not know, which only Redis can tell.
    unknown = house.redis.url().replace(":c4nary", f":{told}")
    assert house.say("status", asset, REELWAY_REDIS_URL=unknown) == 1
    return "refused"


WAYS: Mapping[str, tuple[Callable[[House, str], str], str]] = {
    "success": (all_goes_well, "succeeded"),
    "not found": (there_is_nothing, "media_url_not_accessible"),
    "broken connection": (the_connection_breaks, "source_unavailable"),
    "wrong file": (it_is_another_file, "media_url_unsupported_format"),
    "forbidden redirect": (a_redirect_leads_inside, "source_forbidden"),
    "wrong storage credentials": (the_storage_refuses_us, "storage_forbidden"),
    "storage away": (the_storage_is_away, "storage_unavailable"),
    "redis away": (redis_is_away, "succeeded"),
    "stage killed": (a_stage_is_killed, "stage_interrupted"),
    "stage crashed": (a_stage_crashes, "stage_crashed"),
    "unknown exception": (a_stage_raises_all_it_knows, "stage_failed"),
    "wrong seal key": (the_seal_has_another_key, "source_seal_broken"),
    "poison request": (a_request_is_poison, "refused"),
    "wrong setting": (a_setting_is_wrong, "refused"),
    "upload interrupted": (an_upload_is_interrupted, "succeeded"),
}
"""One way to succeed and more than ten to fail, with what comes of each."""


@pytest.mark.parametrize("way", WAYS)
def test_no_secret_is_told(way: str, house: House) -> None:
    walk, outcome = WAYS[way]
    asset = f"5ecret{list(WAYS).index(way):05}"

    told = walk(house, asset)

    house.look(asset)
    assert told == outcome
    assert house.finds() == set()


# -- that it would be found -------------------------------------------------------------------------------------------


def test_every_place_and_every_disguise_is_looked_at(s3: S3Server, tmp_path: Path) -> None:
    secret, told = SECRET["storage's secret"], ["storage's secret"]
    for before in range(4):
        text = b"x" * before + secret.encode() + b"&more"
        for data in (text, base64.b64encode(text), base64.urlsafe_b64encode(text)):
            assert CANARIES.within(data) == told
    assert CANARIES.within(b"token=c4nary%2Bof%2Fthe%3Dstorage") == told
    assert CANARIES.within(b"X-Amz-Signature=" + b"0a" * 32) == ["signature"]
    assert CANARIES.within(b"https://a.example/") == []

    registry = CollectorRegistry()
    (port,) = free_ports(1)
    server, thread = start_http_server(port, "127.0.0.1", registry)
    with ExitStack() as stack:
        stack.callback(thread.join)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        redis = stack.enter_context(running_server(password=SECRET["password of Redis"]))
        storage = control(Settings.read(redis_url=redis.url(), storage_url=s3.url("planted"))).storage
        url = f"http://127.0.0.1:{port}/metrics"
        places = Places(redis=redis, storage=storage, folder=tmp_path, metrics_url=url)
        assert places.finds(CANARIES) == []

        for database in (0, 1):
            redis.client(database).xadd("planted", {"any": secret})
        storage.put("private/planted", secret.encode())
        (tmp_path / "core.1").write_bytes(b"\0" + secret.encode() + b"\0")
        Counter("planted", "…", ["reason"], registry=registry).labels(secret)
        process = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()", secret],
            stdin=subprocess.PIPE,
            env={"PLANTED": secret},
        )
        stack.callback(process.communicate)
        kinds = {where.partition(" in ")[2] for where in places.finds(CANARIES)}

        assert kinds == {
            "redis 0 planted",
            "redis 1 planted",
            "object private/planted",
            "file core.1",
            f"arguments of {process.pid}",
            "metrics",
        }
        with watching(os.getpid(), CANARIES) as watch:
            seen = {f"{told[0]} in {what} of {process.pid}" for what in ("arguments", "environment")}
            wait_until(lambda: seen <= watch.found)
