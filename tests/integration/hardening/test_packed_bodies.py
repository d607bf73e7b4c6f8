"""Bodies with a Content-Encoding, which may be much larger than they look."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import Any

import pytest
from aiohttp import FormData

from tests.integration.agent import graphs
from tests.integration.agent.service import PATIENCE_SECONDS, Agent, MakeAgent

BARE = zlib.compressobj(wbits=-15)
PAINTED = json.dumps(graphs.painted()).encode()
PACKED = {
    "gzip": gzip.compress(PAINTED),
    "GZIP": gzip.compress(PAINTED),
    "deflate": zlib.compress(PAINTED),
    " deflate": BARE.compress(PAINTED) + BARE.flush(),
    "identity": PAINTED,
    "utf-8": PAINTED,
}


@pytest.mark.parametrize("encoding", PACKED)
async def test_packed_workflow_runs(agent: Agent, encoding: str) -> None:
    headers = {"Content-Encoding": encoding}
    assert (await agent.call("POST", "/api/run", data=PACKED[encoding], headers=headers)).status == 200


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", PACKED["gzip"][:-9]),
        ("gzip", PACKED["gzip"] + b"more"),
        ("gzip", PAINTED),
        ("deflate", b"\x78"),
        ("br", PAINTED),
        ("zstd", PAINTED),
    ],
)
async def test_body_that_is_packed_otherwise_is_refused(agent: Agent, encoding: str, body: bytes) -> None:
    answer = await agent.call("POST", "/api/run", data=body, headers={"Content-Encoding": encoding})
    assert "Content-Encoding" in answer.error(400, "InvalidRequest")["detail"]


async def test_packed_form_is_refused(agent: Agent) -> None:
    form: Any = FormData({"x": "y"}, default_to_multipart=True)
    headers = {"Content-Encoding": "gzip"}
    answer = await agent.call("POST", "/api/workflows/text-to-image/run", data=form, headers=headers)
    assert "form" in answer.error(400, "InvalidRequest")["detail"]


async def test_what_a_refused_caller_sends_is_not_unpacked(make_agent: MakeAgent) -> None:
    """8 MB that would become 8 GB: unpacking takes more than the ten seconds that a web server reads on after it has
    answered, and then it cuts the connection."""
    agent = await make_agent(api_keys=["key"])
    packer = zlib.compressobj(9, wbits=31)
    head = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(10_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    body = head + zeros * 800
    reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            for length, sent in ((len(body), body), (0, b"")):
                fields = f"Host: x\r\nContent-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n"
                writer.write(f"POST /api/run HTTP/1.1\r\n{fields}".encode() + sent)
                await writer.drain()
                assert await reader.readline() == b"HTTP/1.1 401 Unauthorized\r\n"
                told = (await reader.readuntil(b"\r\n\r\n")).lower().partition(b"content-length:")[2]
                await reader.readexactly(int(told.split()[0]))
    finally:
        writer.close()
        await writer.wait_closed()
