"""The object store against a real S3 server on loopback, and against one that is away, silent or hostile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from agent.errors import ObjectStoreUnavailable
from agent.objects import (
    PART_BYTES,
    ObjectMissing,
    ObjectStore,
    ObjectTooLarge,
    open_bucket,
    open_object_store,
)
from agent.settings import Settings
from tests.integration.agent.service import settings_of
from tests.integration.reliability.proxy import TcpProxy
from tests.object_store import KEY_SECRET, Bucket, call

NO_ENVIRONMENT: dict[str, str] = {}


def store_of(settings: Settings) -> ObjectStore:
    store = open_object_store(settings, NO_ENVIRONMENT)
    assert store is not None
    return store


@pytest.fixture
def store(bucket: Bucket) -> ObjectStore:
    return store_of(settings_of(**bucket.settings("out/puts")))


async def test_what_was_put_is_there_with_its_type_and_can_be_read_by_signature(
    store: ObjectStore, bucket: Bucket
) -> None:
    key = store.key("task-1", "2", "0-cat.png")
    await store.put(key, b"meow", "image/png", "inline; filename*=UTF-8''cat.png")
    assert bucket.keys() == ["out/puts/task-1/2/0-cat.png"]
    assert await store.get(key, 4) == (b"meow", "image/png")
    headers, body = await asyncio.to_thread(call, await store.signed_url(key, 77))
    assert body == b"meow"
    assert headers["Content-Type"] == "image/png"
    assert headers["Content-Disposition"] == "inline; filename*=UTF-8''cat.png"


async def test_a_signature_says_how_long_it_holds_and_does_not_show_the_secret(store: ObjectStore) -> None:
    url = await store.signed_url("some/key.png", 77)
    query = parse_qs(urlsplit(url).query)
    assert query["X-Amz-Expires"] == ["77"]
    assert len(query["X-Amz-Signature"][0]) == 64
    assert KEY_SECRET not in url


async def test_a_large_object_goes_up_in_parts_and_comes_back_whole(store: ObjectStore) -> None:
    data = bytes(range(256)) * (2 * PART_BYTES // 256) + b"the end"
    await store.put("large", data, "video/mp4")
    found, media_type = await store.get("large", len(data))
    assert found == data
    assert media_type == "video/mp4"


async def test_what_is_missing_or_too_large_is_told_apart(store: ObjectStore, bucket: Bucket) -> None:
    bucket.put("five", b"12345")
    with pytest.raises(ObjectMissing, match="NoSuchKey"):
        await store.get("six", 100)
    with pytest.raises(ObjectTooLarge):
        await store.get("five", 4)
    elsewhere = open_bucket(settings_of(**bucket.settings()), "s3", "no-such-bucket", NO_ENVIRONMENT)
    with pytest.raises(ObjectMissing, match="NoSuchBucket"):
        await elsewhere.get("five", 100)
    with pytest.raises(ObjectStoreUnavailable, match="NoSuchBucket"):
        await elsewhere.put("five", b"", "image/png")


@pytest.mark.parametrize("key", ["ä ö.png", "a#b?c=d", "100%25.png", "a~b"])
async def test_keys_are_taken_as_they_are(store: ObjectStore, bucket: Bucket, key: str) -> None:
    bucket.put(key, b"x")
    assert (await store.get(key, 1))[0] == b"x"


@pytest.mark.parametrize("key", ["../x", "a//b", "a/./b"])
async def test_a_key_that_no_object_of_ours_has_is_an_error_of_the_store(
    store: ObjectStore, key: str
) -> None:
    with pytest.raises(ObjectStoreUnavailable):
        await store.get(key, 1)


def test_unsafe_names_become_safe_keys(store: ObjectStore) -> None:
    assert store.key("t:1", "3", "0-../ü b?.png") == "out/puts/t:1/3/0-..___b_.png"


async def test_cut_connections_are_opened_again(bucket: Bucket) -> None:
    async with TcpProxy(bucket.server.port) as proxy:
        store = store_of(settings_of(**bucket.settings(object_store_endpoint=proxy.url)))
        await store.put("a", b"1", "text/plain")
        proxy.cut()
        await store.put("b", b"2", "text/plain")
        proxy.refuses = True
        putting = asyncio.create_task(store.put("c", b"3", "text/plain"))
        async with asyncio.timeout(20):
            while not proxy.refused:
                await asyncio.sleep(0.01)  # its first try has yet to come
        proxy.refuses = False
        await putting
    assert bucket.keys() == ["a", "b", "c"]


async def test_a_store_that_is_away_or_silent_ends_in_time(bucket: Bucket) -> None:
    async with TcpProxy(bucket.server.port) as proxy:
        limits = {"object_store_endpoint": proxy.url, "object_store_timeout_seconds": 1.5}
        store = store_of(settings_of(**bucket.settings(**limits)))
        proxy.refuses = True
        with pytest.raises(ObjectStoreUnavailable, match=r"it (cannot be reached|does not answer in time)"):
            await store.put("a", b"1", "text/plain")
        proxy.refuses = False
        proxy.stall()
        began = time.monotonic()
        with pytest.raises(ObjectStoreUnavailable, match=r"cannot be used now"):
            await store.get("a", 1)
        assert time.monotonic() - began < 20
        assert "X-Amz-Signature" in await store.signed_url("a", 1), "nothing is asked for that"


@asynccontextmanager
async def refusing_server(body: bytes) -> AsyncIterator[str]:
    """Answers every request with 403 and this body."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)
        await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def test_a_refusal_names_its_code_and_nothing_that_the_store_repeats(bucket: Bucket) -> None:
    body = b"<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>TESTKEYID</AWSAccessKeyId></Error>"
    async with refusing_server(body) as url:
        store = store_of(settings_of(**bucket.settings(object_store_endpoint=url)))
        with pytest.raises(ObjectStoreUnavailable) as caught:
            await store.get("x", 1)
    error: Any = caught.value
    assert "it answers SignatureDoesNotMatch" in error.detail
    assert "TESTKEYID" not in repr(error.to_dict())
    assert error.__cause__ is None
    assert error.__suppress_context__
