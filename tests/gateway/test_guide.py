"""docs/deploy-function-compute.md from its first command to its last, as somebody with an account would go through it.

Programs and account are stood in for (docs/testing.md tells by what); functions, requests and pictures are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from PIL import Image

from comfyui.launch import dying_with_us
from tests.e2e.blocks import Block, executes
from tests.e2e.shell import Shell, make_clone
from tests.gateway.cloud import Deployed, Platform
from tests.gateway.function import AsyncConfig, Function, agent_command
from tests.gateway.processes import own_port
from tests.integration.agent.service import simulator_args
from tests.ports import free_port
from tests.redis_server import RedisServer
from tests.standins.__main__ import start
from tests.standins.desk import MEMORY, install, remembered
from tests.standins.dockerfile import Dockerfile
from tests.standins.serverless_devs import CLOUD

#: What a reader reads off the console and fills in.
YOURS = {
    "YOUR_NAMESPACE": "studio",
    "YOUR_BUCKET": "studio-pictures",
    "YOUR_VPC": "vpc-1",
    "YOUR_VSWITCH": "vsw-1",
    "YOUR_REDIS": "r-1",
    "YOUR_PASSWORD": "s3cret-Word",
    "YOUR_NAS_MOUNT_TARGET": "nas-1.cn-hangzhou.nas.aliyuncs.com",
    "YOUR_NAS": "nas-1",
    "YOUR_CHOICE": "somebody",
    "YOUR_NODE": "some-node",
    "YOUR_REVISION": "0123abc",
    "YOUR_API_KEY": "callers-key",
}


class Console:
    """The platform's control plane, as far as `s` uses it, over the platform's simulator."""

    def __init__(self, platform: Platform, context: Path, here: dict[str, str]) -> None:
        self._platform, self._dockerfile, self._here = platform, Dockerfile(context), here
        self.functions: dict[str, Deployed] = {}
        self.app = web.Application()
        self.app.add_routes(
            [
                web.put("/{name}", self._deploy),
                web.get("/{name}", self._info),
                web.get("/{name}/log", self._log),
                web.delete("/{name}", self._remove),
            ]
        )

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        runner, port = web.AppRunner(self.app), free_port()
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            await runner.cleanup()

    async def _deploy(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self.functions[name] = await self._platform.deploy(self._function(await request.json()))
        return web.Response()

    def _function(self, props: dict[str, Any]) -> Function:
        """With the settings of s.yaml, and the command of its image. Only addresses are those of this machine."""
        image = props["customContainerConfig"]["image"]
        stage = "front" if re.search(r"-front:", image) else "engine"
        engine_only = props["environmentVariables"]["AGENT_ROLE"] == "engine"
        assert self._dockerfile.stages[stage].command("CMD")[0] == "serve"

        def own(folder: Path) -> dict[str, str]:
            engine = {"COMFYUI_PORT": str(own_port()), "COMFYUI_ARGS": simulator_args(folder / "engine")}
            return engine if engine_only else {}

        lifecycle, queue = props["instanceLifecycleConfig"], props["asyncInvokeConfig"]
        (trigger,) = props["triggers"]
        return Function(
            name=props["functionName"],
            command=dying_with_us((*agent_command()[:-1], *self._dockerfile.stages[stage].command("CMD"))),
            environment=props["environmentVariables"] | self._here,
            own=own,
            methods=frozenset(trigger["triggerConfig"]["methods"]),
            instance_concurrency=props["instanceConcurrency"],
            max_instances=props.get("concurrencyConfig", {}).get("reservedConcurrency", 1),
            timeout_seconds=props["timeout"],
            has_initializer="initializer" in lifecycle,
            has_pre_stop="preStop" in lifecycle,
            health_path=props["customContainerConfig"]["healthCheckConfig"]["httpGetUrl"],
            asynchronous=AsyncConfig(
                task_mode=queue["asyncTask"],
                max_retries=queue["maxAsyncRetryAttempts"],
                max_age_seconds=queue["maxAsyncEventAgeInSeconds"],
            ),
        )

    async def _info(self, request: web.Request) -> web.Response:
        deployed = self._of(request)
        about = {"functionName": deployed.function.name, "url": {"system_url": deployed.url}}
        return web.Response(text=yaml.safe_dump({request.match_info["name"]: about}))

    async def _log(self, request: web.Request) -> web.Response:
        return web.Response(text=self._of(request).log_text)

    async def _remove(self, request: web.Request) -> web.Response:
        """The platform's simulator ends its functions with itself."""
        del self.functions[request.match_info["name"]]
        return web.Response()

    def _of(self, request: web.Request) -> Deployed:
        try:
            return self.functions[request.match_info["name"]]
        except KeyError:
            raise web.HTTPNotFound from None


@executes("docs/deploy-function-compute.md", "bash")
@pytest.mark.timeout(180)
async def test_guide_leads_to_a_picture(
    blocks: list[Block], platform: Platform, tmp_path: Path, redis_server: RedisServer, redis_prefix: str
) -> None:
    clone = make_clone(tmp_path / "clone", "agent", "comfyui", "deploy", "workflows")
    programs = install(tmp_path / "programs", "aliyun", "docker", "mount", "npm", "s")
    nas = str(tmp_path / "nas")
    shell = Shell(clone, YOURS | {"/mnt/nas": nas}, **programs)
    console = Console(platform, clone, {"AGENT_HOST": "127.0.0.1", "AGENT_REDIS_PREFIX": redis_prefix})
    step = iter(blocks)

    async def next_with(word: str) -> str:
        block = next(step)
        assert word in block.text, f"{block} was thought to have {word}"
        return await asyncio.to_thread(shell.run, block)

    async with console.open() as shell.environment[CLOUD]:
        await next_with("npm install")
        for word in ("CreateVpc", "r-kvstore", "nas", "oss mb"):
            await next_with(word)
        await next_with("docker push")
        await next_with("CUSTOM_NODES")
        assert "names no model" in await next_with("provision /models.yaml")
        await next_with("MANIFEST")

        fill_in(clone / "s.yaml", "redisUrl", redis_server.url)
        fill_in(clone / "s.yaml", "apiKeys", YOURS["YOUR_API_KEY"])
        fill_in_names(clone / "s.yaml")
        said = yaml.safe_load(await next_with("s engine deploy"))
        fill_in(clone / "s.yaml", "engineUrl", said["engine"]["url"]["system_url"])
        said = yaml.safe_load(await next_with("s front deploy"))
        shell.instead["https://YOUR_FRONT.cn-hangzhou.fcapp.run"] = said["front"]["url"]["system_url"]

        assert '"ok"' in await next_with("answer.json")
        answer = json.loads((clone / "answer.json").read_text())
        assert any(node.get("results") for node in answer.values()), answer
        assert '"state":"succeeded"' in (await next_with("my-first-task")).replace(" ", "")
        with Image.open(clone / "picture.png") as picture:
            assert picture.size == (512, 512)
        assert "my-first-task" in await next_with("s front logs")
        await next_with("s front remove")
    assert list(step) == []
    assert console.functions == {}
    assert set(remembered(programs[MEMORY])["pushed"]) == {
        "registry.cn-hangzhou.aliyuncs.com/studio/comfyui-agent:0.1.0",
        "registry.cn-hangzhou.aliyuncs.com/studio/comfyui-agent-front:0.1.0",
    }


def fill_in(file: Path, name: str, value: str) -> None:
    """Write a value behind the name, as a reader does who edits `vars`."""
    text, count = re.subn(
        rf"(?m)^(  {name}: ).*$", lambda found: found[1] + json.dumps(value), file.read_text()
    )
    assert count == 1, name
    file.write_text(text)


def fill_in_names(file: Path) -> None:
    text = file.read_text()
    for name in ("YOUR_NAMESPACE", "YOUR_BUCKET"):
        text = text.replace(name, YOURS[name])
    file.write_text(text)


REFUSED = [
    "docker build --platform linux/amd64 -t r.io/a/b:1 --target nobody .",
    "docker build --platform linux/amd64 -t r.io/a/b:1 --build-arg NOBODY=1 .",
    "docker build --platform linux/amd64 -t r.io/a/b:1 --build-arg MANIFEST=deploy/nobody.yaml .",
    "docker build --platform linux/amd64 -t r.io/a/b:1 --squeeze .",
    "docker push r.io/a/b:1",
    "docker run --rm r.io/a/b:1 provision",
    "s engine deploy --skip-push",
    "s engine deploy --skip-push -y",
    "s nobody info",
    "s engine info --verbose",
    "aliyun vpc CreateVSwitch --VpcId v --CidrBlock 10.0.0.0/24",
    "aliyun vpc CreateVpc --RegionId r --VpcNam n",
    "aliyun vpc MakeVpc --RegionId r",
    "npm install -g @serverless-devs/t",
]


@pytest.mark.parametrize("line", REFUSED)
def test_stand_in_refuses_what_the_real_program_would_refuse(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_clone(tmp_path / "clone", "agent", "comfyui", "deploy", "workflows"))
    monkeypatch.setenv(MEMORY, install(tmp_path / "programs")[MEMORY])
    program, *arguments = line.split()
    with pytest.raises(SystemExit) as refused:
        start(program, arguments)
    assert refused.value.code == 2 or "refused" in str(refused.value.code)
