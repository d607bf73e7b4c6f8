"""A caller of the agent who knows what he sends and only waits for the last byte of the answer."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, Self

import aiohttp
import pybase64

from benchmarks.jobs import Graph, Job
from benchmarks.pictures import SIGNATURE

ANSWER_SECONDS = 120


class AnswerWrong(Exception):
    """The agent answered with an error, or not with the pictures that were made."""


class Caller:
    """Keeps its connections to the agent at `url`. Calls may run at the same time."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def __aenter__(self) -> Self:
        self.session = aiohttp.ClientSession(
            self.url,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(ANSWER_SECONDS),
            read_bufsize=2**20,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    async def run(self, body: bytes, **headers: str) -> bytes:
        """POST /api/run; the answer's body. Raises AnswerWrong for an error."""
        headers["Content-Type"] = "application/json"
        async with self.session.post("/api/run", data=body, headers=headers) as response:
            answer = await response.read()
            if response.status not in (200, 202):
                raise AnswerWrong(f"{response.status} {answer[:300].decode(errors='replace')}")
            return answer

    async def get_json(self, path: str) -> Any:
        async with self.session.get(path) as response:
            response.raise_for_status()
            return json.loads(await response.read())


def check_answer(job: Job, graph: Graph, answer: bytes) -> None:
    """Raises AnswerWrong unless the answer holds every picture of the job, whole."""
    nodes = [node for node in json.loads(answer).values() if node.get("images")]
    urls = [url for node in nodes for url in node.get("urls", ())]
    results = [pybase64.b64decode(text, validate=True) for node in nodes for text in node.get("results", ())]
    check_pictures(job, graph, results + urls if job.to_bucket else results)


def check_pictures(job: Job, graph: Graph, pictures: list[Any]) -> None:
    """Raises AnswerWrong unless there are as many as the job makes, and each is a whole PNG (or a URL)."""
    expected = job.copies + ("out" in graph)
    whole = [
        p
        for p in pictures
        if isinstance(p, str) or (p.startswith(SIGNATURE) and p.endswith(b"IEND\xaeB`\x82"))
    ]
    if len(whole) != expected:
        raise AnswerWrong(f"{job.name}: {len(whole)} of {expected} pictures")
