"""The clients where agents really stand: before an object store, behind a front, behind a line that breaks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

from agent.client import AgentClient, AgentRequestError, new_task_id
from agent.settings import variable
from tests.integration.cli import graphs
from tests.integration.cli.conftest import SECONDS, Command, free_port, serving, until
from tests.integration.cli.graphs import fresh_seed
from tests.integration.reliability.proxy import TcpProxy


@pytest.fixture
def bucket_url(command, bucket) -> Iterator[str]:
    """An agent that puts its outputs into a bucket."""
    command.settings = engine_settings(command) | {
        variable(name): str(value) for name, value in bucket.settings(outputs="url").items()
    }
    with serving(command) as url:
        yield url


@pytest.fixture
def front_url(tmp_path, redis_server, redis_prefix) -> Iterator[str]:
    """A front before an agent; both want keys, and not the same."""
    shared = {"REDIS_URL": redis_server.url, "AGENT_REDIS_PREFIX": redis_prefix}
    with ExitStack() as stack:
        engine, front = (command_in(tmp_path / name) for name in ("engine", "front"))
        engine.settings = engine_settings(engine) | shared | {"AGENT_API_KEYS": "engines"}
        engine_url = stack.enter_context(serving(engine))
        front.settings = {
            **shared,
            "AGENT_ROLE": "front",
            "AGENT_ENGINE_URL": engine_url,
            "AGENT_ENGINE_API_KEY": "engines",
            "AGENT_API_KEYS": "callers",
            "AGENT_INVOCATION": "standalone",
            "AGENT_SHUTDOWN_SECONDS": "1",
        }
        yield stack.enter_context(serving(front))


def command_in(home) -> Command:
    home.mkdir()
    return Command(home)


def engine_settings(command: Command) -> dict[str, str]:
    return {
        "AGENT_SHUTDOWN_SECONDS": "1",
        "AGENT_INVOCATION": "standalone",
        "COMFYUI_PORT": str(free_port()),
        "COMFYUI_ARGS": f"--step-seconds 0.02 --base-directory {command.home / 'engine'}",
    }


class Line:
    """A line to an agent that breaks when it is told to; on an event loop of its own, in a thread."""

    def __init__(self, port: int) -> None:
        self._proxy, self._loop = TcpProxy(port), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)

    def cut(self) -> int:
        """Reset all connections; how many there were."""

        async def cut() -> int:
            return self._proxy.cut()

        cut_off: int = self._do(cut())
        return cut_off

    def __enter__(self) -> Self:
        self._thread.start()
        self.url = self._do(self._proxy.__aenter__()).url
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._proxy.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()


@pytest.fixture
def line(agent_url) -> Iterator[Line]:
    with Line(urlsplit(agent_url).port or 0) as made:
        yield made


@pytest.mark.timeout(120)
def test_outputs_in_a_bucket_are_fetched_by_their_urls(bucket_url, bucket, make_client):
    with make_client(bucket_url, timeout=SECONDS) as client:
        result = client.run(graphs.two_saves())
        assert all(node["images"] == [] or "results" not in node for node in result.nodes.values())
        assert [image.getpixel((0, 0)) for image in result.images()] == [(255, 0, 0), (0, 255, 0)]
        assert len(bucket.keys()) == 2
        assert client.fetch_outputs(result.task_id) == result.outputs


@pytest.mark.timeout(120)
def test_front_runs_submits_follows_and_cancels(front_url, make_client):
    with make_client(front_url, "callers", timeout=SECONDS) as client:
        assert client.ready()
        assert len(client.run(graphs.flat()).outputs) == 1
        assert len(client.run_workflow("text-to-image", {"steps": 1}).outputs) == 1
        record = client.wait(client.submit(graphs.sampled(steps=3)))
        assert record["state"] == "succeeded"
        assert client.fetch_output(record["id"], 0)[:4] == b"\x89PNG"
        endless = client.submit_workflow("text-to-image", {"steps": 150, "seed": 7})
        assert client.cancel(endless)["state"] == "cancelled"


@contextmanager
def cutting(line: Line, seen: list[dict[str, Any]]) -> Iterator[Any]:
    """Give an on_progress that cuts the line once the task is under way."""

    def look(record: dict[str, Any]) -> None:
        seen.append(record)
        if record["state"] == "running" and not cuts:
            cuts.append(line.cut())

    cuts: list[int] = []
    yield look
    assert len(cuts) == 1
    assert cuts[0] >= 1


def test_task_is_followed_over_a_line_that_breaks(line, make_client):
    seen: list[dict[str, Any]] = []
    with make_client(line.url, timeout=SECONDS) as client, cutting(line, seen) as look:
        task_id = client.submit(graphs.sampled(steps=200, seed=fresh_seed()))
        record = client.wait(task_id, look)
    assert record["state"] == "succeeded"
    assert len(record["attempts"]) == 1
    assert seen[-1] == record


def test_run_whose_line_breaks_is_sent_again_and_gives_its_result(line, agent_url, make_client):
    """To hang up cancels a run; the same id begins it again, and never twice at the same time."""
    task_id = new_task_id()
    with make_client(line.url, timeout=SECONDS) as client, ThreadPoolExecutor(1) as pool:
        cut = pool.submit(cut_when_running, line, agent_url, task_id)
        result = client.run(graphs.sampled(steps=200, seed=fresh_seed()), task_id)
        assert cut.result(SECONDS) >= 1
        assert (result.task_id, len(result.outputs)) == (task_id, 1)
        assert client.task(task_id)["state"] == "succeeded"


def cut_when_running(line: Line, agent_url: str, task_id: str) -> int:
    with AgentClient(agent_url) as watcher:

        def is_running() -> bool:
            with suppress(AgentRequestError):
                return watcher.task(task_id)["current_node"] is not None
            return False

        until(is_running, "the task runs")
        return line.cut()
