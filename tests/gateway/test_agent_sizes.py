"""The sizes that the platform lets through, and what the agent makes of larger ones (sections 3 to 5)."""

from __future__ import annotations

import json
import random
from io import BytesIO
from typing import Any

from PIL import Image

from tests.gateway.calls import LARGEST_SYNC_BODY
from tests.gateway.conftest import Deploy
from tests.integration.agent.graphs import Graph, node, save
from tests.integration.agent.pictures import b64, encode, look
from tests.integration.agent.service import Answer

SIDE = 2048


def noise() -> Image.Image:
    """A picture that no format makes smaller: 12 MB."""
    return Image.frombytes("RGB", (SIDE, SIDE), random.Random(1).randbytes(SIDE * SIDE * 3))


def saved_twice(picture: bytes) -> Graph:
    """Two outputs, which come to more than 32 MB as base64."""
    saves = {number: save("large", images=["1", 0]) for number in ("2", "3")}
    return {"1": node("LoadImage", image=b64(picture)), **saves}


async def test_answer_that_would_pass_32_mb_names_its_pictures_by_url(
    deploy_gpu: Deploy, deploy_front: Deploy
) -> None:
    """Through a front, so that the answer has to pass two gateways."""
    gpu, _ = await deploy_gpu()
    _, caller = await deploy_front(gpu)
    body = json.dumps(saved_twice(encode(noise(), compress_level=1))).encode()
    answer = await caller.call("POST", "/api/run", data=BytesIO(body), headers={"task-id": "large"})
    for answered in (answer, await caller.status("large")):
        await check(answered, caller)


async def check(answer: Answer, caller: Any) -> None:
    assert answer.status == 200, answer.body[:300]
    assert len(answer.body) < LARGEST_SYNC_BODY
    for number in ("2", "3"):
        assert "results" not in answer.json[number]
        (url,) = answer.json[number]["urls"]
        output = await caller.get(url)
        assert look(output.body).convert("RGB").tobytes() == noise().tobytes()
