"""Inputs that are named by bucket and key."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from agent.build import bucket_reader
from agent.settings import SettingsError
from tests.integration.agent import graphs
from tests.integration.agent.pictures import color_of, png
from tests.integration.agent.service import MakeAgent, settings_of
from tests.integration.reliability.proxy import TcpProxy
from tests.object_store import KEY_ID, KEY_SECRET, Bucket, S3Server


async def test_picture_of_an_open_bucket_is_an_input(make_agent: MakeAgent, bucket: Bucket) -> None:
    agent = await make_agent(input_buckets=[bucket.name], **bucket.settings())
    picture = png(color=(0, 0, 255))
    bucket.put("cats/ä cat #1.png", picture)
    answer = await agent.run(graphs.loaded(f"s3://{bucket.name}/cats/ä cat #1.png"))
    assert [color_of(data) for data in answer.results("2")] == [(0, 0, 255)]


async def test_the_prefix_of_an_entry_bounds_what_is_open(make_agent: MakeAgent, bucket: Bucket) -> None:
    agent = await make_agent(input_buckets=[f"{bucket.name}/open"], **bucket.settings())
    for key in ("open/cat.png", "opener/cat.png", "cat.png"):
        bucket.put(key, png())
    assert (await agent.run(graphs.loaded(f"s3://{bucket.name}/open/cat.png"))).status == 200
    for key in ("opener/cat.png", "cat.png"):
        answer = await agent.run(graphs.loaded(f"s3://{bucket.name}/{key}"))
        answer.error(400, "InputForbidden")
    answer = await agent.run(graphs.loaded(f"s3://{bucket.name}/open/../cat.png"))
    answer.error(400, "InputNotFetched")


async def test_the_store_for_outputs_is_not_open_by_itself(make_agent: MakeAgent, bucket: Bucket) -> None:
    agent = await make_agent(**bucket.settings())
    bucket.put("cat.png", png())
    error = (await agent.run(graphs.loaded(f"s3://{bucket.name}/cat.png"))).error(400, "InputForbidden")
    assert (error["node_id"], error["input"]) == ("1", "image")
    assert error["url"] == f"s3://{bucket.name}/cat.png"
    assert "AGENT_INPUT_BUCKETS" in error["detail"]


async def test_what_cannot_be_used_names_node_input_and_reason(
    make_agent: MakeAgent, bucket: Bucket, s3_server: S3Server
) -> None:
    open_buckets = [bucket.name, "no-such-bucket"]
    agent = await make_agent(input_buckets=open_buckets, max_input_bytes=5000, **bucket.settings())
    bucket.put("large.png", bytes(5001))
    bucket.put("text.png", b"no picture")
    for reference, status, code, said in [
        (f"s3://{bucket.name}/missing.png", 400, "InputNotFetched", "NoSuchKey"),
        ("s3://no-such-bucket/cat.png", 400, "InputNotFetched", "NoSuchBucket"),
        (f"s3://{bucket.name}/large.png", 413, "InputTooLarge", "5000 bytes"),
        (f"s3://{bucket.name}/text.png", 400, "InvalidInput", ""),
        (f"s3://{bucket.name}/", 400, "InputNotFetched", "no object"),
        ("s3:///cat.png", 400, "InputNotFetched", "malformed"),
        (f"oss://{bucket.name}/cat.png", 400, "InputNotFetched", "not set up for oss://"),
    ]:
        if reference.startswith("oss://"):
            agent = await make_agent(input_buckets=open_buckets)
        error = (await agent.run(graphs.loaded(reference))).error(status, code)
        assert said in error["detail"], reference
        assert (error["node_id"], error["input"]) == ("1", "image"), reference


async def test_store_that_is_silent_ends_the_input_in_time_and_tells_no_secret(
    make_agent: MakeAgent, bucket: Bucket
) -> None:
    async with TcpProxy(bucket.server.port) as proxy:
        agent = await make_agent(
            input_buckets=[bucket.name],
            fetch_timeout_seconds=1,
            **bucket.settings(object_store_endpoint=proxy.url),
        )
        bucket.put("cat.png", png())
        proxy.stall()
        with capture_logs() as lines:
            answer = await agent.run(graphs.loaded(f"s3://{bucket.name}/cat.png"))
        answer.error(400, "InputNotFetched")
        assert KEY_ID not in answer.body.decode() + str(lines)
        assert KEY_SECRET not in answer.body.decode() + str(lines)


@pytest.mark.parametrize("entry", ["Bucket", "s3://bucket", "a", "/x"])
def test_entry_that_is_no_bucket_is_refused_at_start(entry: str) -> None:
    with pytest.raises(SettingsError, match="AGENT_INPUT_BUCKETS"):
        bucket_reader(settings_of(input_buckets=[entry]))
