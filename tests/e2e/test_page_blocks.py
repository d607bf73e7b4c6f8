"""The blocks of each page are executed from top to bottom, beside an agent where they call one."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import TypeAdapter

from agent.api.models import ErrorBody, NodeResult
from agent.errors import AgentError
from agent.library.importer import first_manifest
from agent.library.library import read_manifest
from agent.webhooks.signing import message_headers, read_secret
from comfyui.workflow import Workflow
from tests.e2e.blocks import ROOT, Block, executes
from tests.e2e.shell import Shell, serving
from tests.integration.reliability.fleet import ENDED


@executes("docs/client.md", "bash", "python")
def test_client_page(blocks: list[Block], shell: Shell) -> None:
    Image.new("RGB", (64, 48), (200, 120, 40)).save(shell.folder / "cat.png")
    with serving(shell):
        said = [shell.run(block) for block in blocks]
    assert said[-1].endswith("4\ncancelled\n")
    assert len(list((shell.folder / "foxes").glob("*.png"))) == 6
    with Image.open(shell.folder / "postcard.png") as picture:
        assert picture.size == (720, 480)


@executes("docs/workflows.md", "bash")
def test_workflows_page(blocks: list[Block], shell: Shell) -> None:
    Image.new("RGB", (64, 48), (200, 120, 40)).save(shell.folder / "photo.jpg")
    with serving(shell):
        for block in blocks:
            shell.run(block)


@executes("docs/workflows.md", "yaml")
def test_manifest_on_the_workflows_page_is_one(blocks: list[Block], tmp_path: Path) -> None:
    (block,) = blocks
    (tmp_path / "shown.yaml").write_text(block.take())
    manifest = read_manifest(tmp_path / "shown.yaml")
    assert manifest.parameters["strength"].maximum == 1


@executes("docs/workflows.md", "json")
def test_panels_on_the_workflows_page_are_understood(blocks: list[Block]) -> None:
    (block,) = blocks
    manifest = first_manifest(Workflow.parse({"3": json.loads(block.take())}), "shown", {})
    (parameter,) = manifest.parameters.values()
    assert (parameter.title, parameter.minimum, parameter.maximum) == ("Steps", 1, 50)


@executes("docs/provisioning.md", "bash")
def test_provisioning_page(blocks: list[Block], shell: Shell) -> None:
    for block in blocks:
        shell.run(block)


@executes("docs/api.md", "json")
def test_json_on_the_api_page_is_what_the_agent_answers(blocks: list[Block]) -> None:
    error, inline, by_url = (json.loads(block.take()) for block in blocks)
    ErrorBody.model_validate(error)
    kind = AgentError.by_code[error["message"]]
    assert error["error"]["transient"] is kind.transient
    for progress in (inline, by_url):
        nodes = TypeAdapter(dict[str, NodeResult]).validate_python(progress)
        for node in nodes.values():
            assert len(node.images) == len(node.results or node.urls)
        assert {name for entry in progress.values() for name in entry} <= set(NodeResult.model_fields)


@executes("docs/api.md", "http")
def test_webhook_on_the_api_page_is_formed_as_ours_are(blocks: list[Block]) -> None:
    (block,) = blocks
    head, _, body = block.take().partition("\n\n")
    start, *lines = head.splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    assert re.fullmatch(r"POST /\S* HTTP/1\.1", start)
    ours = message_headers([read_secret("whsec_" + "A" * 32)], "msg_1", 1, b"")
    assert set(headers) == {"content-type", *ours}
    assert [len(part) for part in headers["webhook-signature"].split(",")] == [
        len(part) for part in ours["webhook-signature"].split(",")
    ]
    message = json.loads(body.replace(", ...", ""))
    assert set(message) == {"type", "timestamp", "data"}
    assert message["type"] == f"task.{message['data']['state']}"
    assert message["data"]["state"] in ENDED


@executes("docs/api.md", "python")
def test_receivers_in_the_api_page_can_verify_our_webhooks(blocks: list[Block]) -> None:
    (block,) = blocks
    names: dict[str, Any] = {}
    exec(block.take(), names)
    secret, other = ("whsec_" + letter * 32 for letter in "AB")
    body, now = b'{"type":"task.succeeded"}', int(time.time())
    headers = message_headers([read_secret(other), read_secret(secret)], "msg_1", now, body)
    names["verify"](secret, headers, body)
    old = message_headers([read_secret(secret)], "msg_1", now - 301, body)
    unsigned = message_headers([], "msg_1", now, body)
    for wrong, text in [
        (headers, body + b" "),
        (old, body),
        (unsigned, body),
        ({**headers, "webhook-id": "x"}, body),
    ]:
        with pytest.raises(ValueError, match=r"ago|signed"):
            names["verify"](secret, wrong, text)


@executes("docs/architecture.md", "text")
def test_maps_on_the_architecture_page_are_of_our_files(blocks: list[Block]) -> None:
    for block in blocks:
        text = block.take()
        named = re.findall(r"(?<![\w/.-])((?:agent|comfyui)/[\w/.]*\w)", text)
        assert named or "/api/" in text
        for name in named:
            assert (ROOT / name).exists(), f"{block} names {name}"
