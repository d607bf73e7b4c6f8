"""The blocks of docs/safety.md, and what it says of labels."""

from __future__ import annotations

import json

import pytest

from agent.labels.aigc import aigc_json
from agent.labels.labeller import Labeller
from agent.settings import load_settings
from tests.certificates import make_signer
from tests.e2e.blocks import Block, executes
from tests.e2e.shell import Shell, serving


@executes("docs/safety.md", "bash")
def test_commands_of_the_safety_page(blocks: list[Block], shell: Shell) -> None:
    with serving(shell):
        said = [shell.run(block) for block in blocks]
    assert any("trainedAlgorithmicMedia" in text or "Digital Source Type" in text for text in said)
    assert (shell.folder / "chain.pem").read_text().count("BEGIN CERTIFICATE") == 2


@executes("docs/safety.md", "env")
def test_settings_on_the_safety_page_start(
    blocks: list[Block], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("signer")
    signer = make_signer(folder)
    for block in blocks:
        found = dict(line.split("=", 1) for line in block.take().splitlines())
        found["AGENT_LABEL_C2PA_CERTIFICATE"] = str(signer.certificate)
        found["AGENT_LABEL_C2PA_KEY"] = str(signer.key)
        for name, value in found.items():
            monkeypatch.setenv(name, value)
        assert Labeller(load_settings(found)).credentials is not None


@executes("docs/safety.md", "json")
def test_label_on_the_safety_page_is_the_one_that_is_written(blocks: list[Block]) -> None:
    (block,) = blocks
    assert json.loads(block.take()) == json.loads(aigc_json("Example Ltd", "TASK-ID-0"))
