"""The blocks of docs/safety.md, and what it says of labels and numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from agent.labels.aigc import aigc_json
from agent.labels.labeller import Labeller
from agent.safety.classifiers.build import build_image_classifiers
from agent.safety.classifiers.classifier import Label
from agent.safety.classifiers.hook import _read
from agent.safety.verdict import Verdict
from agent.settings import load_settings
from tests.certificates import make_signer
from tests.e2e.blocks import Block, executes
from tests.e2e.shell import Shell, serving

PAGE = Path(__file__).parents[2] / "docs/safety.md"


@executes("docs/safety.md", "bash")
def test_commands_of_the_safety_page(blocks: list[Block], shell: Shell) -> None:
    with serving(shell):
        said = [shell.run(block) for block in blocks]
    table = next(text for text in said if "precision" in text)
    for name, *numbers in re.findall(
        r"^(\w+) +(\d+) +(\d+) +\d+ +([\d.]+%) +([\d.]+%)$", table, re.MULTILINE
    ):
        shown = "any failure" if name == "anything" else f"`{name}`"
        assert f"| {shown} | {' | '.join(numbers)} |" in PAGE.read_text()
    assert any("trainedAlgorithmicMedia" in text or "Digital Source Type" in text for text in said)
    assert (shell.folder / "chain.pem").read_text().count("BEGIN CERTIFICATE") == 2


@executes("docs/safety.md", "env")
def test_settings_on_the_safety_page_start(
    blocks: list[Block], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("signer")
    signer = make_signer(folder)
    *reviews, labels = blocks
    (folder / "classifier.onnx").touch()
    for block in reviews:
        found = dict(line.split("=", 1) for line in block.take().splitlines())
        if "AGENT_SAFETY_ONNX_MODEL" in found:
            found["AGENT_SAFETY_ONNX_MODEL"] = str(folder / "classifier.onnx")
        with monkeypatch.context() as patch:
            for name, value in found.items():
                patch.setenv(name, value)
            assert len(build_image_classifiers(load_settings(found))) == 1
    for block in (labels,):
        found = dict(line.split("=", 1) for line in block.take().splitlines())
        found["AGENT_LABEL_C2PA_CERTIFICATE"] = str(signer.certificate)
        found["AGENT_LABEL_C2PA_KEY"] = str(signer.key)
        for name, value in found.items():
            monkeypatch.setenv(name, value)
        assert Labeller(load_settings(found)).credentials is not None


@executes("docs/safety.md", "json")
def test_json_on_the_safety_page_is_what_is_written_and_read(blocks: list[Block]) -> None:
    verdict, answer, block = blocks
    shown = json.loads(verdict.take())
    assert Verdict.model_validate(shown).model_dump(mode="json") == shown
    assert _read(answer.take().encode()) == [Label("violence", 0.97)]
    assert json.loads(block.take()) == json.loads(aigc_json("Example Ltd", "TASK-ID-0"))
