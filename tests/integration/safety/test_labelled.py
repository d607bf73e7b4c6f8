"""The review and the labels together: what is shown in a picture's place is labelled too, and says how it was made."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from c2pa import Reader

from tests.certificates import make_signer
from tests.exif_tool import ExifTool, exif_tool
from tests.integration.agent import graphs
from tests.integration.safety.conftest import SAFE, UNSAFE, Hook, MakeAgent, reviewed
from tests.integration.safety.test_images import is_blurred
from tests.object_store import Bucket

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExifTool]:
    with exif_tool(tmp_path_factory.mktemp("exiftool")) as found:
        yield found


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    signer = make_signer(tmp_path_factory.mktemp("signer"))
    return {
        "label_iptc": "enforce",
        "label_aigc": "enforce",
        "label_aigc_producer": "Example Ltd",
        "label_parameters": "warn",
        "label_c2pa": "enforce",
        **signer.settings(),
    }


def check(tool: ExifTool, data: bytes, produce_id: str) -> dict[str, Any]:
    tags = tool.read(data)
    assert tags["XMP-iptcExt:DigitalSourceType"] == SOURCE_TYPE
    assert f'"ProduceID":"{produce_id}"' in tags["XMP-TC260:Aigc"]
    with Reader("image/png", io.BytesIO(data)) as reader:
        assert reader.get_validation_state() == "Valid"
    return tags


async def test_blurred_picture_is_labelled(
    make_agent: MakeAgent, hook: Hook, tool: ExifTool, labels: dict[str, Any]
) -> None:
    hook.answers = [UNSAFE]
    agent = await make_agent(**reviewed(hook, **labels))
    task_id = await agent.begin(graphs.sampled())
    record = await agent.succeeded(task_id)
    data = (await agent.output(task_id, 0)).body
    assert is_blurred(data)
    check(tool, data, f"{task_id}-0")
    assert record["outputs"][0]["bytes"] == len(data)
    assert [warning["code"] for warning in record["warnings"]] == ["ImageBlurred"]


async def test_picture_of_new_seeds_is_labelled_with_them_and_stored(
    make_agent: MakeAgent, hook: Hook, tool: ExifTool, labels: dict[str, Any], bucket: Bucket
) -> None:
    hook.answers = [UNSAFE, SAFE]
    agent = await make_agent(
        **reviewed(hook, safety_images_action="retry", outputs="url", **labels, **bucket.settings())
    )
    task_id = await agent.begin(graphs.sampled(seed=5))
    record = await agent.succeeded(task_id)
    async with agent.http.get(record["outputs"][0]["signed_url"]) as answer:
        tags = check(tool, await answer.read(), f"{task_id}-0")
    seed = record["seeds"]["5"]["seed"]
    assert seed != 5
    assert f"Seed: {seed}," in tags["PNG:Parameters"]
