"""The clients where agents really stand: before an object store, behind a front, behind a line that breaks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from agent.client import new_task_id
from tests.integration.cli import graphs
from tests.integration.cli.conftest import SECONDS, cut_when_running
from tests.integration.cli.graphs import fresh_seed
from tests.integration.cli.places import Line


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
