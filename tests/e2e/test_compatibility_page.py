"""docs/compatibility.md says of every parameter, route, model and error what the code does with it."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import webuiapi
import yaml
from openai.types.image_edit_params import ImageEditParamsBase
from openai.types.image_generate_params import ImageGenerateParamsBase
from PIL import Image
from pydantic import TypeAdapter

from agent.api import editor, editor_jobs
from agent.api.facades import (
    ALL,
    automatic1111_input,
    automatic1111_samplers,
    cloudflare_answers,
    cloudflare_input,
    openai_answers,
    openai_input,
    runpod_jobs,
)
from agent.api.facades.models import BUILT_IN, Answer, Model
from agent.errors import AgentError, InvalidParameter
from agent.library.library import Library
from agent.settings_facades import FacadeName
from comfyui.routes import HARMLESS
from comfyui.simulator.nodes import sampling
from tests.clients.programs import python_client
from tests.e2e.blocks import ROOT, Block, executes
from tests.e2e.shell import Shell, serving
from tests.ports import free_port, wait_until_open, wait_until_ready

PAGE = (ROOT / "docs/compatibility.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the table whose head begins with this cell."""
    lines = iter(PAGE.splitlines())
    next(line for line in lines if line.startswith(f"| {heading} |"))
    next(lines)
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def fates(heading: str) -> dict[str, str]:
    """Parameter -> what becomes of it."""
    return {name: fate for cell, fate in rows(heading) for name in names(cell)[:1]}


@executes("docs/compatibility.md", "bash", "python")
def test_blocks_of_the_page_work(blocks: list[Block], shell: Shell) -> None:
    *calls, serve, forward, comfy = blocks
    with serving(shell):
        for block in calls:
            shell.run(block)
    for name in ("fox.png", "fox-2.png"):
        with Image.open(shell.folder / name) as picture:
            assert picture.size == (512, 512)

    shell.instead["8188"] = str(port := free_port())
    with shell.running(serve):
        wait_until_ready(shell.environment["COMFYUI_AGENT_URL"])
        with shell.running(forward):
            wait_until_open(port)
            comfy.take()  # also where nobody has installed comfy-cli
            shell.environment["PATH"] += f":{Path(python_client('comfy')).parent}"
            assert json.loads(shell.run(comfy))["data"]["status"] == "completed"


@executes("docs/compatibility.md", "yaml")
def test_table_of_models_on_the_page_is_one(blocks: list[Block]) -> None:
    (block,) = blocks
    table = TypeAdapter(dict[str, Model | None]).validate_python(yaml.safe_load(block.take()))
    assert table["dall-e-3"] is None


def test_page_lists_each_route_of_its_facades() -> None:
    listed = [names(row[2])[0] for row in rows("API")]
    assert set(listed) == set(FacadeName)
    shown = set(re.findall(r"^\| `([A-Z]+ /[^`?]+)` \|", PAGE, re.MULTILINE))
    routes = [route for facade in ALL if facade.name in listed for route in facade.routes]
    # Those of RunPod are there twice.
    paths = [
        (method, re.sub(r":[^}]*}", "}", path).removeprefix("/v2/{endpoint}")) for method, path, _ in routes
    ]
    assert shown - routes_of_comfyui() == {f"{method} {path}" for method, path in paths}


def routes_of_comfyui() -> set[str]:
    routes = [
        *editor.OURS,
        *((method, f"/api{path}", handler) for method, path, handler in editor_jobs.ROUTES),
    ]
    return {f"{method} {re.sub('{[^}]*}', 'ID', path)}" for method, path, _ in routes}


def test_page_lists_each_route_of_comfyui_that_is_answered() -> None:
    shown = {name for row in rows("route of ComfyUI") for name in names(row[0])}
    assert routes_of_comfyui() <= shown
    assert {f"{method} {path.partition('/{')[0]}" for path, method in HARMLESS.items()} <= shown


def test_fields_of_a_runpod_job_are_treated_as_the_page_says() -> None:
    said = fates("field of a job")
    assert {name.removeprefix("input.") for name in said if name.startswith("input.")} == set(
        runpod_jobs.INPUTS
    )
    ignored = {name for name, fate in said.items() if fate.startswith("ignored")}
    assert ignored == set(runpod_jobs.IGNORED)
    assert set(runpod_jobs.STATUSES.values()) <= set(names(fates("told of a job")["status"]))


def test_page_lists_each_built_in_model_and_its_workflows() -> None:
    shown: set[str] = set()
    for cell, *words, checkpoint in rows("model"):
        fitting = {name for name in BUILT_IN for pattern in names(cell) if fnmatchcase(name, pattern)}
        shown |= fitting
        for name in fitting:
            model = BUILT_IN[name]
            assert [model.workflow or "", model.edit or "", model.inpaint or ""] == words
            assert model.values["checkpoint"] == checkpoint
            assert model.lora == ("lora" if model.workflow and "flux" not in name else None)
    assert shown == set(BUILT_IN)
    assert {name for cell, _ in rows("word") for name in names(cell)} == set(Model.model_fields)
    assert {names(row[0])[0] for row in rows("answer of the model")} == {answer.value for answer in Answer}


def test_parameters_of_workers_ai_are_treated_as_the_page_says() -> None:
    said = fates("parameter of Workers AI")
    known = set(cloudflare_input.Input.model_fields)
    assert {name for name, fate in said.items() if fate.startswith("refused")} == set(
        cloudflare_input.REFUSED
    )
    ignored = {name for name, fate in said.items() if fate.startswith("ignored")}
    assert set(said) - ignored - set(cloudflare_input.REFUSED) == known
    plain = cloudflare_input.read_input({"prompt": "x"})
    for name in ignored:
        assert cloudflare_input.read_input({"prompt": "x", name: object()}) == plain
    for name in cloudflare_input.REFUSED:
        with pytest.raises(InvalidParameter, match=f'"{name}"'):
            cloudflare_input.read_input({"prompt": "x", name: "y"})


def test_parameters_of_openai_are_all_on_the_page_and_treated_as_it_says() -> None:
    said = fates("parameter of OpenAI Images")
    original = {*ImageGenerateParamsBase.__annotations__, *ImageEditParamsBase.__annotations__, "stream"}
    assert set(said) == original
    refused = {name for name, fate in said.items() if fate.startswith("refused")}
    ignored = {name for name, fate in said.items() if fate.startswith("ignored")}
    assert refused == set(openai_input.REFUSED)
    known = {*openai_input.Generation.model_fields, *openai_input.Edit.model_fields}
    assert original - refused - ignored == {"image" if name == "images" else name for name in known}
    plain = openai_input.Generation(prompt="x")
    for name in ignored:
        more: dict[str, Any] = {name: object()}
        assert openai_input.Generation.model_validate({"prompt": "x", **more}) == plain


def test_qualities_on_the_page_are_those_of_the_code() -> None:
    fate = fates("parameter of OpenAI Images")["quality"]
    words = {"a half": 0.5, "one and a half": 1.5, "twice": 2.0, "two and a half": 2.5}
    shown = {}
    for quality, effort in openai_input.EFFORT.items():
        share = next(text for text, value in words.items() if value == effort)
        assert share in fate
        shown[quality] = f"`{quality}`" in fate
    assert all(shown.values())


def test_errors_of_workers_ai_have_the_codes_of_the_page() -> None:
    for code, status, when in rows("code"):
        for name in names(when):
            if name not in AgentError.by_code:
                continue
            assert cloudflare_answers.CODES[name] == (int(code), int(status)), name
    listed = {name for *_, when in rows("code") for name in names(when)}
    assert set(cloudflare_answers.CODES) <= listed
    pairs = {(int(code), int(status)) for code, status, _ in rows("code")}
    assert {cloudflare_answers.WRONG_INPUT, cloudflare_answers.INTERNAL} <= pairs


def test_errors_of_openai_have_the_codes_of_the_page() -> None:
    listed = {}
    for cell, code, status in rows("our error"):
        (name,) = names(cell)
        listed[name] = (names(code)[0], int(status))
        response = openai_answers.render_error(AgentError.by_code[name]())
        assert response.status == int(status)
        assert f'"code":"{names(code)[0]}"'.encode() in (response.body or b"")  # type: ignore[operator]
    assert set(openai_answers.CODES) | set(openai_answers.STATUSES) == set(listed)


class Recorder(webuiapi.WebUIApi):  # type: ignore[misc] # it has no types
    """Keeps what it would send."""

    def check_extensions(self) -> None:
        """Without a server there are none."""

    def post_and_get_api_result(self, url: str, json: Any, use_async: bool) -> Any:
        return json


def test_parameters_of_automatic1111_are_treated_as_the_page_says() -> None:
    said = fates("parameter of AUTOMATIC1111")
    recorder = Recorder()
    recorder.session.close()
    drawing = recorder.txt2img(prompt="x")
    change = recorder.img2img(prompt="x", images=[Image.new("RGB", (8, 8))])
    assert set(drawing) | set(change) <= set(said)
    refused = {name for name, fate in said.items() if fate.startswith("refused")}
    ignored = {name for name, fate in said.items() if fate.startswith("ignored")}
    assert refused == set(automatic1111_input.REFUSED)
    assert ignored == set(automatic1111_input.IGNORED)
    assert set(said) - refused - ignored == set(automatic1111_input.Change.model_fields)
    check, kind = automatic1111_input.check_call, automatic1111_input.Drawing
    assert check(kind, drawing).prompt == check(automatic1111_input.Change, change).prompt == "x"
    plain = check(kind, {"prompt": "x"})
    for name in ignored:
        assert check(kind, {"prompt": "x", name: object()}) == plain
    for name in refused:
        with pytest.raises(InvalidParameter, match=f'"{name}"'):
            check(kind, {"prompt": "x", name: {"x": 1}})


def test_samplers_and_schedulers_of_the_page_are_those_of_the_code_and_of_comfyui() -> None:
    samplers, schedulers = automatic1111_samplers.SAMPLERS, automatic1111_samplers.SCHEDULERS
    assert [tuple(names(c)[0] for c in row) for row in rows("sampler")] == [
        (s.name, s.ours, s.automatic) for s in samplers
    ]
    assert [(names(a)[0], *names(b)) for a, b in rows("scheduler")] == [
        (s.label, *([s.ours] if s.ours else [])) for s in schedulers
    ]
    library = Library()
    for workflow in ("text-to-image", "image-to-image", "inpaint", "lora"):
        parameters = library.get(workflow).manifest.parameters
        assert {s.ours for s in samplers} == set(parameters["sampler"].options)
        assert {s.ours for s in schedulers} - {None} == set(parameters["scheduler"].options)
    assert {s.ours for s in samplers} <= set(sampling.SAMPLERS.split())
