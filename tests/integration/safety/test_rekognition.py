"""Amazon Rekognition, at a local address that speaks its wire format."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from aiohttp import web
from PIL import Image

from agent.safety.classifiers.classifier import ClassifierDown, Label
from agent.safety.classifiers.rekognition import MOST_BYTES, Rekognition, _encode
from tests.integration.agent import graphs
from tests.integration.safety.amazon import Amazon, Refused, label, moderation
from tests.integration.safety.conftest import MakeAgent, verdicts
from tests.serving import serving

PICTURE = Image.new("RGB", (64, 64), (200, 30, 30))


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "amazon-secret",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)


@pytest_asyncio.fixture(loop_scope="session")
async def amazon() -> AsyncIterator[Amazon]:
    """What is red is violent."""

    def labels(picture: Image.Image) -> list[dict[str, Any]]:
        red, _, blue = picture.convert("RGB").resize((1, 1)).getpixel((0, 0))
        found = [label("Violence", 96.5, level=1), label("Graphic Violence", 91.0, "Violence")]
        return found if red > 2 * blue else [label("Alcohol", 55.0, level=1)]

    made = Amazon(moderation(labels))
    async with serving(web.post("/", made.answer), client_max_size=2**24) as made.url:
        yield made


def client(amazon: Amazon, **thresholds: float) -> Rekognition:
    return Rekognition(thresholds or {"*": 0.8}, region="eu-west-1", endpoint=amazon.url, seconds=20)


async def test_labels_come_with_their_groups(amazon: Amazon) -> None:
    rekognition = client(amazon)
    await rekognition.prepare()
    assert await rekognition.classify(PICTURE) == [
        Label("Violence", 0.965, ""),
        Label("Graphic Violence", 0.91, "Violence"),
    ]
    assert amazon.signed == [("AKIDEXAMPLE", "eu-west-1", "rekognition")]
    assert amazon.calls[0]["MinConfidence"] == 80
    await rekognition.close()


async def test_asked_for_is_what_some_threshold_can_use(amazon: Amazon) -> None:
    rekognition = client(amazon, alcohol=0.5, violence=0.9)
    assert await rekognition.classify(Image.new("RGB", (64, 64), (0, 0, 200))) == [Label("Alcohol", 0.55)]
    assert amazon.calls[0]["MinConfidence"] == 50
    await rekognition.close()


@pytest.mark.parametrize(
    ("code", "is_lasting"), [("ThrottlingException", False), ("AccessDeniedException", True)]
)
async def test_errors_are_told_by_their_code(amazon: Amazon, code: str, is_lasting: bool) -> None:
    amazon.faults = [Refused(code)]
    rekognition = client(amazon)
    with pytest.raises(ClassifierDown, match=code) as down:
        await rekognition.classify(PICTURE)
    assert down.value.is_lasting is is_lasting
    assert await rekognition.classify(PICTURE), "the next one is answered"
    await rekognition.close()


async def test_nothing_there(amazon: Amazon) -> None:
    rekognition = Rekognition({"*": 0.8}, region="eu-west-1", endpoint="http://127.0.0.1:9", seconds=20)
    with pytest.raises(ClassifierDown, match="EndpointConnectionError"):
        await rekognition.classify(PICTURE)
    await rekognition.close()
    lost = Rekognition({"*": 0.8}, region=None, endpoint=None, seconds=20)
    with pytest.raises(ClassifierDown, match="NoRegionError"):
        await lost.prepare()
    await lost.close()


def test_pictures_are_made_to_fit() -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (1024, 1024, 3), np.uint8))
    for picture in (noise, Image.new("RGB", (1024, 3)), Image.new("RGB", (1, 1))):
        data = _encode(picture)
        assert len(data) <= MOST_BYTES
        assert data.startswith(b"\xff\xd8\xff")


async def test_task_is_reviewed_by_it(make_agent: MakeAgent, amazon: Amazon) -> None:
    agent = await make_agent(
        safety_images="enforce",
        safety_images_action="fail",
        safety_image_classifiers=["rekognition"],
        safety_rekognition_endpoint=amazon.url,
        safety_rekognition_region="eu-west-1",
        safety_rekognition_thresholds="violence=0.9,alcohol=0.9",
        safety_classifier_seconds=20,
    )
    amazon.faults = [Refused("ThrottlingException"), Refused("ProvisionedThroughputExceededException")]
    error = (await agent.run(graphs.painted(0xC02020, (64, 64)), "red")).error(403, "UnsafeImage")
    assert error["category"] == "Violence"
    assert verdicts(await agent.task("red")) == [("rekognition", "Violence", "fail")]
    assert len(amazon.calls) == 3, "it was asked again after it was too busy"
    task_id = await agent.begin(graphs.painted(0x2020C0, (64, 64)))
    assert verdicts(await agent.succeeded(task_id)) == [("rekognition", "none", "pass")]
