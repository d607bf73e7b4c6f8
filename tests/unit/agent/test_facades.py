"""The table of models and the wishes of callers, without a server."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.api.facades import ALL, cloudflare_answers, cloudflare_input, openai_input
from agent.api.facades.models import BUILT_IN, Answer, Model, ModelTable
from agent.api.facades.request import Wish, _build
from agent.errors import AgentError, InvalidModel, InvalidParameter, ModelNotFound
from agent.library.library import Library
from agent.settings_facades import FacadeName
from tests.unit.library.shelf import named


def test_every_facade_has_its_line() -> None:
    assert [facade.name for facade in ALL] == list(FacadeName)


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_models_fit_the_workflows_that_they_name(name: str) -> None:
    model, library = BUILT_IN[name], Library()
    workflows = [library.get(workflow) for workflow in model.workflows]
    assert workflows
    assert set(model.values) <= {p for workflow in workflows for p in workflow.manifest.parameters}
    for workflow in workflows:
        pictures = [n for n, p in workflow.manifest.parameters.items() if p.type.is_file]
        wish = Wish(
            {"prompt": "a cat", "negative_prompt": "a dog", "steps": 3, "guidance": 2.0, "seed": 5},
            images=["x"] if workflow.name in (model.edit, model.inpaint) else [],
            mask="y" if workflow.name == model.inpaint else None,
        )
        graph = _build(workflow, model, wish, "inline", 100).run.workflow.graph
        sampler = graph["3"]["inputs"]
        assert (sampler["steps"], sampler["cfg"], sampler["seed"]) == (3, 2.0, 5)
        assert len(pictures) == len(wish.images) + (wish.mask is not None)


def test_first_fitting_line_counts_and_an_exact_one_before_wildcards() -> None:
    own = {"gpt-*": Model(workflow="a"), "gpt-image-1": Model(workflow="b"), "dall-e-2": None}
    table = ModelTable(own)
    assert [table.get(name).workflow for name in ("gpt-x", "gpt-image-1", "gpt-image-77")] == ["a", "b", "a"]
    for name in ("dall-e-2", "whisper", "*", "", "gpt-image-*x\n" * 99):
        if not name.startswith("gpt"):
            with pytest.raises(ModelNotFound):
                table.get(name)
    assert "dall-e-2" not in table.names
    assert "gpt-*" not in table.names


TEXT = {"prompt": {"type": "text", "sets": "6.text"}}


def build(parameters: dict[str, Any], wish: Wish, values: dict[str, Any] | None = None) -> dict[str, Any]:
    model = Model(workflow="x", values=values or {})
    graph: dict[str, Any] = _build(named(parameters), model, wish, "inline", 100).run.workflow.graph
    return graph


def test_roles_find_parameters_by_name_then_by_kind() -> None:
    parameters = {
        "words": {"type": "text", "sets": "6.text"},
        "dice": {"type": "seed", "sets": "3.seed"},
        "denoise": {"type": "number", "sets": "3.denoise"},
    }
    graph = build(
        parameters, Wish({"prompt": "a lion", "seed": 9, "strength": 0.5, "width": 64, "stops": None})
    )
    assert graph["6"]["inputs"]["text"] == "a lion"
    assert (graph["3"]["inputs"]["seed"], graph["3"]["inputs"]["denoise"]) == (9, 0.5)


def test_values_of_the_table_count_where_the_caller_gives_none() -> None:
    parameters = {**TEXT, "steps": {"type": "integer", "sets": "3.steps", "minimum": 1, "maximum": 40}}
    assert build(parameters, Wish({}), {"steps": 4})["3"]["inputs"]["steps"] == 4
    assert build(parameters, Wish({"steps": 7}), {"steps": 4})["3"]["inputs"]["steps"] == 7


@pytest.mark.parametrize(
    ("effort", "values", "steps"),
    [(0.5, {}, 10), (2.5, {}, 40), (0.5, {"steps": 1}, 1), (2, {"steps": 4}, 8)],
)
def test_effort_is_a_share_of_the_steps_within_their_limits(
    effort: float, values: dict[str, Any], steps: int
) -> None:
    parameters = {**TEXT, "steps": {"type": "integer", "sets": "3.steps", "minimum": 1, "maximum": 40}}
    assert build(parameters, Wish({}, effort=effort), values)["3"]["inputs"]["steps"] == steps


def test_errors_name_what_the_caller_wrote_and_blame_the_table_for_the_rest() -> None:
    parameters = {**TEXT, "cfg": {"type": "number", "sets": "3.cfg", "minimum": 0, "maximum": 30}}
    with pytest.raises(InvalidParameter, match='"cfg_scale"') as caught:
        build(parameters, Wish({"guidance": 99.0}, names={"guidance": "cfg_scale"}))
    assert caught.value.facts["parameter"] == "cfg_scale"
    with pytest.raises(InvalidModel, match="cfg"):
        build(parameters, Wish({}), {"cfg": 99.0})


def test_a_size_that_becomes_megapixels_is_refused_as_what_it_is() -> None:
    parameters = {
        **TEXT,
        "megapixels": {"type": "number", "sets": "3.denoise", "minimum": 0.01, "maximum": 4},
    }
    with pytest.raises(
        InvalidParameter, match=r'^Parameter "width": .*, in megapixels: width times height\.$'
    ):
        build(parameters, Wish({"megapixels": 0.004}, names={"megapixels": "width"}))


def test_what_a_model_lacks_is_said() -> None:
    table = ModelTable({})
    for name, sent, says in (
        ("@cf/runwayml/stable-diffusion-v1-5-inpainting", {"has_picture": True}, "needs a mask"),
        ("@cf/runwayml/stable-diffusion-v1-5-img2img", {}, "needs a picture"),
        ("@cf/black-forest-labs/flux-1-schnell", {"has_picture": True}, "takes no picture"),
        ("@cf/black-forest-labs/flux-1-schnell", {"has_mask": True}, "takes no mask"),
    ):
        with pytest.raises(InvalidParameter, match=says):
            table.get(name).workflow_for(**{"has_picture": False, "has_mask": False, **sent})


@pytest.mark.parametrize("score", ["1" * 400, '"much"', "null", "[]"])
def test_labels_without_numbers_are_the_workflows_fault(score: str) -> None:
    with pytest.raises(InvalidModel, match="no labels"):
        cloudflare_answers._labels(f'[{{"label": "cat", "score": {score}}}]')


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(st.sampled_from(sorted(cloudflare_input.Input.model_fields)), JSON, max_size=6),
    st.sampled_from(Answer),
)
def test_whatever_a_caller_of_workers_ai_sends_is_understood_or_refused(data: Any, answer: Answer) -> None:
    with suppress(AgentError):
        cloudflare_input.wish_of(cloudflare_input.read_input(data), Model(workflow="x", answer=answer))


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(st.sampled_from(sorted(openai_input.Edit.model_fields)), JSON, max_size=6),
    st.sampled_from((openai_input.Generation, openai_input.Edit)),
)
def test_whatever_a_caller_of_openai_sends_is_understood_or_refused(data: Any, kind: Any) -> None:
    with suppress(AgentError):
        given = openai_input._validate(kind, {"prompt": "x", **data})
        openai_input._size(given.size)
