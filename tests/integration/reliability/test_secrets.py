"""Recognisable secrets go in wherever secrets can; nothing of what comes out, stays or is logged holds one."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest_asyncio
from PIL import Image
from redis.asyncio import Redis

from tests.integration.agent import graphs
from tests.integration.agent.pictures import png
from tests.integration.inputs.conftest import MediaServer, answer
from tests.integration.reliability.fleet import AgentProcess, ready, slow
from tests.object_store import Bucket
from tests.redis_server import RedisServer

MARK = "S3cr3t"
KEY = f"key-{MARK}"
WEBHOOK_SECRET = "whsec_S3cr3tS3cr3tS3cr3tS3cr3tS3cr3tS3cr3tS3cr3tS3cr"
PLATFORM = {
    "x-fc-access-key-id": f"id-{MARK}",
    "x-fc-access-key-secret": f"secret-{MARK}",
    "x-fc-security-token": f"token-{MARK}",
    "Authorization": f"Basic {MARK}",
}


@pytest_asyncio.fixture(loop_scope="session")
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis", password=f"password-{MARK}")
    server.start()
    yield server
    server.stop()


def texts_of(image: Path) -> str:
    with Image.open(image) as opened:
        return str(opened.info)


async def test_no_secret_comes_out_stays_or_is_logged(
    tmp_path: Path, redis: RedisServer, bucket: Bucket
) -> None:
    seen: list[str] = []
    environment = {
        "REDIS_URL": redis.url,
        "AGENT_API_KEYS": KEY,
        "AGENT_FETCH_ALLOW": "127.0.0.1",
        "AGENT_LOG_LEVEL": "debug",
        "AGENT_INVOCATION": "gateway",
        "AGENT_WEBHOOK_SECRETS": WEBHOOK_SECRET,
        "AGENT_WEBHOOK_TIMEOUT_SECONDS": "1",
        "AGENT_WEBHOOK_ATTEMPTS": "2",
        "AGENT_REDIS_TIMEOUT_SECONDS": "0.5",
        "AGENT_OBJECT_STORE": f"s3://{bucket.name}/out",
        "AGENT_OBJECT_STORE_ENDPOINT": bucket.server.url,
        "AGENT_OBJECT_STORE_KEY_ID": "open-id",  # a part of every signed URL
        "AGENT_OBJECT_STORE_KEY_SECRET": f"object-{MARK}",
        "AWS_ACCESS_KEY_ID": f"aws-id-{MARK}",
        "AWS_SECRET_ACCESS_KEY": f"aws-secret-{MARK}",
        "AWS_SESSION_TOKEN": f"aws-token-{MARK}",
        "ALIBABA_CLOUD_ACCESS_KEY_ID": f"env-id-{MARK}",
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": f"env-{MARK}",
        "ALIBABA_CLOUD_SECURITY_TOKEN": f"env-token-{MARK}",
    }
    async with MediaServer().listening() as media, AgentProcess(tmp_path / "agent", **environment) as agent:
        await ready(agent)
        media.answers["/cat.png"] = answer("200 OK", png(), Content_Type="image/png")
        headers = {"X-Api-Key": KEY, **PLATFORM}

        async def send(method: str, path: str, body: Any = None, **more: str) -> dict[str, Any]:
            sent = None if body is None else json.dumps(body)
            got = await agent.call(method, path, data=sent, headers={**headers, **more})
            seen.append(f"{got.status} {dict(got.headers)} {got.body.decode(errors='replace')}")
            return {"status": got.status, "json": json.loads(got.body) if got.body[:1] == b"{" else {}}

        def loaded(path: str, host: str = "127.0.0.1") -> Any:
            query = f"?Signature={MARK}&Expires=1&OSSAccessKeyId={MARK}"
            return graphs.loaded(f"http://user:{MARK}@{host}:{media.port}{path}{query}")

        # What works, what fails in each stage, and what is refused.
        by_url = {"prompt": slow(2), "outputs": "url"}
        assert (await send("POST", "/api/run", by_url, **{"task-id": "by-url"}))["status"] == 200
        assert "X-Amz-Signature=" in seen[-1]
        await send("GET", "/api/tasks/by-url")
        assert (await send("POST", "/api/run", loaded("/cat.png"), **{"task-id": "good"}))["status"] == 200
        assert MARK in media.requests[0], "the signature reached the server that asked for it"
        for name, body, status in [
            ("not-there", loaded("/nothing.png"), 400),
            ("no-picture", loaded("/html"), 400),
            ("no-host", loaded("/x", "nowhere.invalid"), 400),
            ("raised", graphs.raising("broken"), 500),
            ("refused", graphs.chain(graphs.node("LoadImage", image=f"{MARK}"), graphs.save()), 400),
            ("class", {"1": {"class_type": "Nope", "inputs": {"key": MARK}}}, 400),
        ]:
            got = await send("POST", "/api/run", body, **{"task-id": name})
            assert got["status"] == status, got
            await send("GET", f"/api/tasks/{name}")
            await send("GET", f"/api/status?id={name}")
        extra = {"prompt": slow(3), "extra_data": {"api_key_comfy_org": MARK, "auth_token_comfy_org": MARK}}
        assert (await send("POST", "/api/run", extra, **{"task-id": "partner"}))["status"] == 200
        media.answers["/hook"] = answer("204 No Content")
        for name, where, state in [
            ("told", f"127.0.0.1:{media.port}/hook", "delivered"),
            ("untold", f"127.0.0.1:{media.port}/nothing", "failed"),
            ("no-receiver", "nowhere.invalid/hook", "failed"),
        ]:
            body = {"prompt": slow(2), "webhook": f"http://user:{MARK}@{where}?token={MARK}#{MARK}"}
            assert (await send("POST", "/api/run", body, **{"task-id": name}))["status"] == 200
            got = await send("GET", f"/api/tasks/{name}")
            assert got["json"]["webhook"]["state"] == state, got
        assert any(f"POST /hook?token={MARK} " in head for head in media.requests), "it reached the receiver"
        body = {"prompt": slow(2), "webhook": f"http://10.0.0.1/{'x' * 9}?{MARK}"}
        assert (await send("POST", "/api/run", body, **{"task-id": "bad-webhook"}))["status"] == 400
        for wrong in ({"X-Api-Key": f"wrong-{MARK}"}, {"Authorization": f"Bearer wrong-{MARK}"}):
            got = await agent.call("GET", "/api/tasks", headers=wrong)
            assert got.status == 401
            seen.append(got.body.decode())
        await send("POST", "/api/run", MARK, **{"task-id": f"../{MARK}"})
        async with agent.http.ws_connect("/api/run/ws", headers=headers) as socket:
            await socket.send_json(loaded("/nothing.png"))
            seen.append((await socket.receive()).data)

        # The engine dies in the middle, with the secrets of a workflow at hand.
        run = asyncio.create_task(send("POST", "/api/run", slow(30), **{"task-id": "died"}))
        await agent_running(agent, headers, "died")
        agent.signal_engine(signal.SIGKILL)
        assert (await run)["status"] == 200
        await send("GET", "/api/tasks")
        seen += [json.dumps(await agent.engine.get(path)) for path in ("/history", "/queue")]
        pid = agent.engine_pid
        assert pid is not None
        seen.append(str(psutil.Process(pid).environ()))
        seen.append(str(psutil.Process(pid).cmdline()))

        answered = len(seen)
        async with Redis.from_url(redis.url) as client:
            keys = [key async for key in client.scan_iter()]
            assert any(b"good" in key for key in keys)
            for key in keys:
                seen.append(f"{key!r} {await client.dump(key)!r}")
                if key.endswith(b":task"):
                    seen.append(str(await client.hgetall(key)))
                elif b":output:" in key:
                    seen.append(str(await client.get(key)))

        signature = "X-Amz-Signature"
        assert not any(signature in text for text in seen[answered:])
        await asyncio.to_thread(redis.stop)
        await send("POST", "/api/run", slow(2), **{"task-id": "without-redis"})
        await send("GET", "/readyz")
        assert await agent.stop() == 0
        assert signature not in agent.log_text
        seen.append(agent.log_text)

    pictures = [path for path in agent.place.base.rglob("*.png") if path.stat().st_size]
    assert len(pictures) >= 3
    seen += [f"{path} {path.read_bytes()!r}" for path in agent.place.base.rglob("*") if path.is_file()]
    seen += [texts_of(path) for path in pictures]
    leaks = [text for text in seen if MARK in text or "c2VjcjN0" in text]
    assert [excerpt(text) for text in leaks] == []


def excerpt(text: str) -> str:
    at = text.find(MARK)
    return text[max(0, at - 200) : at + 100]


async def agent_running(agent: AgentProcess, headers: dict[str, str], task_id: str) -> None:
    async with asyncio.timeout(15):
        while True:
            got = await agent.call("GET", f"/api/tasks/{task_id}", headers=headers)
            if got.status == 200 and got.json["state"] == "running":
                return
            await asyncio.sleep(0.02)  # nothing but polling is being tested here


async def test_engine_listens_on_loopback_alone(tmp_path: Path) -> None:
    async with AgentProcess(tmp_path / "agent") as agent:
        await ready(agent)
        pid = agent.engine_pid
        assert pid is not None
        listening = [c.laddr for c in psutil.Process(pid).net_connections("inet") if c.status == "LISTEN"]
        assert [(where.ip, where.port) for where in listening] == [("127.0.0.1", agent.engine_port)]
