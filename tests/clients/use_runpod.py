"""A caller of RunPod who uses its own client for Python, blocking and asynchronous.

usage: use_runpod.py BASE_URL KEY < {"quick": input, "long": input, "failing": input}; prints what the client gave back.
"""

import asyncio
import json
import sys

import requests
import runpod
from runpod.http_client import AsyncClientSession

PATIENCE_SECONDS = 60
WRONG = {"workflow": {}, "prompt": "nothing that worker-comfyui takes"}

_, base_url, key = sys.argv
jobs = json.load(sys.stdin)
runpod.endpoint_url_base, runpod.api_key = base_url, key


def blocking() -> dict:
    endpoint = runpod.Endpoint("an-endpoint")
    told = {
        "health": endpoint.health(),
        "at once": endpoint.run_sync(jobs["quick"], timeout=PATIENCE_SECONDS),
    }
    job = endpoint.run(jobs["quick"])
    told["later"] = job.output(timeout=PATIENCE_SECONDS)
    long = endpoint.run(jobs["long"])
    told["cancelled"] = [long.status(), long.cancel()["status"], long.status()]
    failing = endpoint.run(jobs["failing"])
    told["streamed"] = list(failing.stream())
    told["failed"] = failing.status()
    try:
        endpoint.run(WRONG)
    except requests.HTTPError as error:
        told["refused"] = [error.response.status_code, error.response.json()["code"]]
    try:
        runpod.Endpoint("an-endpoint", api_key="not-the-key").health()
    except RuntimeError as error:
        told["unauthorized"] = str(error)
    return told


async def asynchronous() -> dict:
    async with AsyncClientSession() as session:
        endpoint = runpod.AsyncioEndpoint("an-endpoint", session)
        told = {"health": await endpoint.health()}
        job = await endpoint.run(jobs["quick"])
        told["later"] = await job.output(timeout=PATIENCE_SECONDS)
        long = await endpoint.run(jobs["long"])
        told["cancelled"] = [await long.status(), (await long.cancel())["status"], await long.status()]
        return told


json.dump({"blocking": blocking(), "asynchronous": asyncio.run(asynchronous())}, sys.stdout)
