"""The platform hands out credentials in every request and in the environment; none of them may come out (section 3).

Every test in this folder ends with a look for them in all answers and event streams, all files of all instances (logs,
pictures, the engine's folders), and Redis. Here they are looked for where the fixture cannot look.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from tests.gateway.cloud import Platform
from tests.gateway.conftest import Deploy
from tests.gateway.leaks import LeakDetector
from tests.integration.agent import graphs
from tests.integration.reliability.fleet import slow
from tests.integration.reliability.proxy import Link, TcpProxy
from tests.integration.simulator.process import Simulator

PATIENCE_SECONDS = 40


class Tap(TcpProxy):
    """Hears everything that is said through it."""

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self.heard = bytearray()

    async def passing(self, chunk: bytes, _link: Link, *, is_answer: bool) -> None:
        self.heard.extend(chunk)


async def test_engine_is_told_no_credential(deploy_gpu: Deploy, platform: Platform, tmp_path: Path) -> None:
    simulator = Simulator(tmp_path / "engine", ("--lab-nodes",))
    await simulator.start()
    try:
        async with Tap(simulator.port) as tap:
            environment = {"COMFYUI_URL": tap.url, "AGENT_LOG_LEVEL": "debug"}
            function, caller = await deploy_gpu(environment=environment, own=lambda _: {})
            (await caller.run(slow(5), "good")).ok()
            (await caller.run(graphs.raising(), "bad")).error(500, "NodeFailed")
            await caller.invoke(b"{", "worse")
            await function.queue.ended("worse", PATIENCE_SECONDS)
            assert b"POST /prompt" in tap.heard
            platform.leaks.look_at("what the engine was told", bytes(tap.heard))
    finally:
        await simulator.stop()
    assert platform.leaks.found == []


async def test_environment_of_the_engine_holds_no_credential(deploy_gpu: Deploy, platform: Platform) -> None:
    function, caller = await deploy_gpu()
    (await caller.run(graphs.painted())).ok()
    (instance,) = function.fleet.instances
    agent, engine = instance._tree.pids()
    detector = LeakDetector(platform.account)
    detector.look_at("agent", str(psutil.Process(agent).environ()))
    assert detector.found, "the agent has them"
    platform.leaks.look_at("engine", str(psutil.Process(engine).environ()))
    assert platform.leaks.found == []


async def test_detector_finds_what_a_container_gives_away(deploy_echo: Deploy, platform: Platform) -> None:
    _, caller = await deploy_echo()
    await caller.get("/secrets")
    assert len(platform.leaks.found) == 1
    platform.leaks.found.clear()
