"""`comfyui-agent serve` as a process: its environment, its exit codes, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from agent.settings import Settings, variable
from tests.integration.agent import graphs
from tests.integration.agent.service import (
    PATIENCE_SECONDS,
    Agent,
    MakeAgent,
    eventually,
    settings_of,
    simulator_args,
)
from tests.ports import free_port
from tests.redis_server import RedisServer


class Served(Agent):
    """The console script as a child process, spoken to like any other agent. `log` is its stdout and stderr."""

    def __init__(self, base: Path, arguments: tuple[str, ...], variables: dict[str, str]) -> None:
        self.settings = settings_of(comfyui_port=free_port())
        self.port, self.log = free_port(), ""
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("AGENT_", "COMFYUI_", "FC_", "REDIS_"))
        }
        self._environ = {
            **kept,
            "AGENT_HOST": "127.0.0.1",
            "AGENT_PORT": str(self.port),
            "COMFYUI_PORT": str(self.settings.comfyui_port),
            "COMFYUI_ARGS": simulator_args(base),
            **variables,
        }
        self._environ = {name: value for name, value in self._environ.items() if value}
        self._arguments = arguments

    async def launch(self) -> None:
        script = Path(sys.executable).with_name("comfyui-agent")
        self.process = await asyncio.create_subprocess_exec(
            script,
            "serve",
            *self._arguments,
            env=self._environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._reader = asyncio.create_task(self._read())
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = aiohttp.ClientSession(self.url, timeout=aiohttp.ClientTimeout(total=15))

    async def serving(self) -> Served:
        """As soon as its port is open."""

        async def is_open() -> bool:
            assert self.process.returncode is None, self.log
            with contextlib.suppress(aiohttp.ClientConnectionError):
                return (await self.get("/healthz")).status == 200
            return False

        await eventually(is_open)
        return self

    async def exit_code(self, seconds: float = 15) -> int:
        async with asyncio.timeout(seconds):
            await self._reader
            return await self.process.wait()

    async def end(self) -> None:
        await self.http.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await self._reader

    async def _read(self) -> None:
        assert self.process.stdout
        while chunk := await self.process.stdout.read(65536):
            self.log += chunk.decode(errors="replace")

    def children(self) -> list[int]:
        pid = self.process.pid
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


Serve = Callable[..., Awaitable[Served]]


@pytest_asyncio.fixture(loop_scope="session")
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Launch `comfyui-agent serve`; what still runs at the end is killed."""
    launched: list[Served] = []

    async def start(*arguments: str, wait: bool = True, **variables: str) -> Served:
        one = Served(tmp_path / str(len(launched)), arguments, variables)
        await one.launch()
        launched.append(one)
        return await one.serving() if wait else one

    yield start
    for one in launched:
        await one.end()


def exists(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize(
    ("variables", "named", "code"),
    [
        ({"AGENT_TYPO": "1"}, "AGENT_TYPO", 2),
        ({"AGENT_QUEUE_SIZE": "many"}, "AGENT_QUEUE_SIZE", 2),
        ({"AGENT_FETCH_ALLOW": "not a host/99"}, "AGENT_FETCH_ALLOW", 2),
        ({"AGENT_LOG_LEVEL": "loud"}, "AGENT_LOG_LEVEL", 2),
        ({"REDIS_URL": "no url"}, "REDIS_URL", 2),
        ({"COMFYUI_ROOT": "/no/such/folder"}, "/no/such/folder", 1),
        ({"COMFYUI_URL": "not a url"}, "COMFYUI_URL", 2),
        ({"COMFYUI_ROOT": "/a", "COMFYUI_URL": "http://b"}, "COMFYUI_URL", 2),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
async def test_wrong_setting_ends_the_start_with_a_sentence(
    serve: Serve, variables: dict[str, str], named: str, code: int
) -> None:
    one = await serve(wait=False, **variables)
    assert await one.exit_code() == code
    assert named in one.log
    assert "Traceback" not in one.log
    assert one.log.strip().splitlines()[-1].startswith("comfyui-agent: ")


async def test_taken_port_ends_the_start_with_a_sentence_and_leaves_no_engine(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        one = await serve(wait=False, AGENT_PORT=str(taken.getsockname()[1]))
        assert await one.exit_code() == 1
    assert "Traceback" not in one.log
    assert "in use" in one.log
    with pytest.raises(OSError):  # noqa: SIM117
        with socket.create_connection(("127.0.0.1", one.settings.comfyui_port), timeout=1):
            pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_lets_the_run_finish_and_leaves_nothing_behind(
    serve: Serve, number: signal.Signals
) -> None:
    one = await serve()
    await one.ready()
    caller = asyncio.create_task(one.run(graphs.stepping(steps=40), "last"))
    await one.running_later("last")
    children = one.children()
    assert children
    one.process.send_signal(number)
    assert len((await caller).results("3")) == 1
    assert await one.exit_code() == 0
    assert not [pid for pid in children if exists(pid)]
    assert "Traceback" not in one.log


async def test_signal_ends_the_wait_for_a_run_that_takes_too_long(serve: Serve) -> None:
    one = await serve(AGENT_SHUTDOWN_SECONDS="0.5")
    await one.ready()
    caller = asyncio.create_task(one.run(graphs.stepping(steps=1000)))
    await eventually(lambda: is_busy(one))
    started = time.monotonic()
    one.process.send_signal(signal.SIGTERM)
    (await caller).error(503, "ShuttingDown")
    assert await one.exit_code() == 0
    assert time.monotonic() - started < PATIENCE_SECONDS


async def is_busy(agent: Agent) -> bool:
    return bool((await agent.get("/api/queue")).ok()["running"])


async def test_engine_dies_with_an_agent_that_is_killed(serve: Serve) -> None:
    one = await serve()
    await one.ready()
    children = one.children()
    one.process.kill()
    await one.exit_code()

    async def are_gone() -> bool:
        return not any(exists(pid) for pid in children)

    await eventually(are_gone)


async def test_task_of_a_killed_instance_is_run_by_the_one_it_is_delivered_to_next(
    serve: Serve, make_agent: MakeAgent, redis_server: RedisServer, redis_prefix: str
) -> None:
    shared = {"REDIS_URL": redis_server.url, "AGENT_REDIS_PREFIX": redis_prefix}
    lost = await serve(AGENT_LEASE_SECONDS="1", AGENT_INVOCATION="gateway", **shared)
    heir = await make_agent(redis_url=redis_server.url, redis_prefix=redis_prefix, invocation="gateway")
    graph = graphs.stepping(steps=100, seconds=0.01)
    caller = asyncio.create_task(lost.run(graph, "orphan"))
    await heir.running_later("orphan")
    lost.process.kill()
    with pytest.raises(aiohttp.ClientError):
        await caller
    await heir.until("orphan", lambda r: r["state"] == "queued")
    assert len((await heir.run(graph, "orphan")).results("3")) == 1
    first, second = (await heir.task("orphan"))["attempts"]
    assert (first["outcome"], second["outcome"]) == ("lost", "succeeded")


async def test_task_of_a_killed_instance_is_failed_where_nobody_delivers_it_again(
    serve: Serve, make_agent: MakeAgent, redis_server: RedisServer, redis_prefix: str
) -> None:
    lost = await serve(AGENT_LEASE_SECONDS="1", REDIS_URL=redis_server.url, AGENT_REDIS_PREFIX=redis_prefix)
    other = await make_agent(redis_url=redis_server.url, redis_prefix=redis_prefix)
    await lost.begin(graphs.stepping(steps=1000), "orphan")
    await other.running("orphan")
    lost.process.kill()
    record = await other.until("orphan", lambda r: r["state"] == "failed")
    assert record["error"]["code"] == "InstanceLost"
    (await other.status("orphan")).error(503, "InstanceLost")


async def test_more_connections_than_file_descriptors_are_waited_out(serve: Serve) -> None:
    one = await serve()
    await one.ready()
    used = len(list(Path(f"/proc/{one.process.pid}/fd").iterdir()))
    resource.prlimit(one.process.pid, resource.RLIMIT_NOFILE, (used + 10, used + 10))
    with contextlib.ExitStack() as held:
        for _ in range(40):
            held.enter_context(socket.create_connection(("127.0.0.1", one.port)))
        await until_said(one, "out of system resource")
    await one.serving()
    assert one.log.count("out of system resource") < 100, (
        "asyncio would say it some thousands of times a second"
    )


async def until_said(one: Served, words: str) -> None:
    async def is_said() -> bool:
        return words in one.log

    await eventually(is_said)


async def test_port_of_the_platform_is_used_where_none_is_set(serve: Serve) -> None:
    one = await serve(wait=False, AGENT_PORT="")
    await one.end()
    one._environ["FC_CUSTOM_LISTEN_PORT"] = str(one.port)
    await one.launch()
    await one.serving()


async def test_flags_win_over_the_environment(serve: Serve) -> None:
    port = free_port()
    one = await serve("--port", str(port), wait=False)
    one.port, one.url = port, f"http://127.0.0.1:{port}"
    await one.http.close()
    one.http = aiohttp.ClientSession(one.url)
    await one.serving()


async def test_help_lists_every_setting(serve: Serve) -> None:
    one = await serve("--help", wait=False, COLUMNS="200", NO_COLOR="1", TERM="dumb")
    assert await one.exit_code() == 0
    text = re.sub(r"\s+", " ", one.log)
    assert [name for name in map(variable, Settings.model_fields) if name not in text] == []


async def test_log_says_that_the_engine_is_a_simulator_and_holds_no_secret(serve: Serve) -> None:
    one = await serve(AGENT_API_KEYS="s3cret-key", AGENT_LOG_LEVEL="debug", AGENT_FETCH_ALLOW="127.0.0.1")
    headers = {"X-Api-Key": "s3cret-key", "x-fc-security-token": "s3cret-token"}
    url = "http://user:s3cret-password@127.0.0.1:9/x.png?signature=s3cret-signature"
    (await one.run(graphs.loaded(url), headers=headers)).error(400, "InputNotFetched")
    await one.run(graphs.painted(), headers=headers)
    one.process.terminate()
    await one.exit_code()
    assert "simulated" in one.log
    assert "s3cret" not in one.log
