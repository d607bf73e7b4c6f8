"""A caller's values: what is taken, what is refused, and what gets into the graph."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import InvalidParameter
from agent.library.library import NamedWorkflow
from agent.library.schema import schema_of
from agent.library.values import fill, from_text
from tests.unit.library.shelf import GRAPH, named

LARGEST = 2**64 - 1


def everything() -> NamedWorkflow:
    """A workflow with a parameter of each type."""
    loader = {"class_type": "LoadImage", "inputs": {"image": "example.png", "flag": False, "mode": "a"}}
    return named(
        {
            "prompt": {"type": "text", "sets": "6.text"},
            "name": {"type": "string", "sets": "9.filename_prefix"},
            "steps": {"type": "integer", "sets": "3.steps", "minimum": 1, "maximum": 100},
            "cfg": {"type": "number", "sets": "3.cfg", "minimum": 0, "maximum": 30},
            "flag": {"type": "boolean", "sets": "1.flag"},
            "mode": {"type": "choice", "sets": "1.mode", "choices": ["a", "b", 3]},
            "seed": {"type": "seed", "sets": "3.seed", "default": -1},
            "photo": {"type": "image", "sets": "1.image", "required": False},
            "model": {"type": "model", "sets": "4.ckpt_name"},
        },
        {**GRAPH, "1": loader},
    )


RIGHT = [
    ("prompt", ""),
    ("prompt", "雪\n🐈"),
    ("name", "x"),
    ("steps", 1),
    ("steps", 100),
    ("steps", 7.0),
    ("cfg", 0),
    ("cfg", 2.5),
    ("flag", True),
    ("mode", "b"),
    ("mode", 3),
    ("seed", LARGEST),
    ("seed", -1),
    ("seed", 0),
    ("photo", "cat.png"),
    ("model", "other.safetensors"),
]

WRONG = [
    *(("prompt", value) for value in (1, None, True, [], {})),
    *(("steps", value) for value in (0, 101, "5", 5.5, True, None, [5], 1e300)),
    *(("cfg", value) for value in (-0.1, 30.5, "7", False, None, 10**400, -(10**400))),
    *(("flag", value) for value in (1, 0, "true", None)),
    *(("mode", value) for value in ("c", "3", True, None, [], {"a": 1})),
    *(("seed", value) for value in (-2, LARGEST + 1, 1.5, "1", True, None, 1e19)),
    *(("photo", value) for value in ("", "  ", 5, None, {})),
    *(("model", value) for value in ("", 1)),
]


@pytest.mark.parametrize(("name", "value"), RIGHT)
def test_right_value_gets_into_the_graph_as_it_is(name: str, value: Any) -> None:
    workflow = everything()
    (place,) = workflow.manifest.parameters[name].places
    found = fill(workflow, {name: value}).nodes[place.node].inputs[place.input]
    assert found == value
    assert type(found) is (int if name == "steps" else type(value))


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_wrong_value_is_refused_and_names_its_parameter(name: str, value: Any) -> None:
    with pytest.raises(InvalidParameter) as caught:
        fill(everything(), {name: value})
    assert caught.value.status == 422
    assert caught.value.facts["parameter"] == name
    assert f'"{name}"' in caught.value.detail


def test_unknown_parameter_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidParameter, match=r'no parameter "promt"\. It has: prompt, name') as caught:
        fill(everything(), {"promt": "x"})
    assert caught.value.facts["parameter"] == "promt"


def test_missing_file_is_refused() -> None:
    needs = named({"photo": {"type": "image", "sets": "6.text"}})
    with pytest.raises(InvalidParameter, match='"photo" is needed') as caught:
        fill(needs, {})
    assert caught.value.facts["parameter"] == "photo"


def test_what_is_left_out_is_the_manifests_default_or_else_the_graphs() -> None:
    filled = fill(everything(), {}).nodes
    assert filled["3"].inputs["seed"] == -1
    assert filled["3"].inputs["steps"] == 20
    assert filled["1"].inputs["image"] == "example.png"


def test_one_parameter_sets_several_inputs() -> None:
    both = named({"words": {"type": "text", "sets": ["6.text", "7.text"]}})
    filled = fill(both, {"words": "same"}).nodes
    assert (filled["6"].inputs["text"], filled["7"].inputs["text"]) == ("same", "same")
    assert both.workflow.nodes["6"].inputs["text"] == "a cat", "the library's own graph stays"


def test_error_of_a_long_value_stays_short() -> None:
    with pytest.raises(InvalidParameter) as caught:
        fill(everything(), {"steps": "x" * 100_000})
    assert len(caught.value.detail) < 300


@pytest.mark.parametrize(
    ("name", "text", "meant"),
    [
        ("steps", "20", 20),
        ("steps", " 20 ", 20),
        ("seed", str(LARGEST), LARGEST),
        ("seed", "-1", -1),
        ("cfg", "7", 7),
        ("cfg", "7.25", 7.25),
        ("cfg", "NaN", "NaN"),
        ("flag", "on", True),
        ("flag", "False", False),
        ("flag", "maybe", "maybe"),
        ("mode", "3", 3),
        ("mode", "a", "a"),
        ("prompt", " 5 ", " 5 "),
        ("photo", "cat.png", "cat.png"),
        ("steps", "9" * 5000, None),
    ],
)
def test_text_of_a_form_is_read_as_its_parameter_needs_it(name: str, text: str, meant: Any) -> None:
    found = from_text(everything().manifest.parameters[name], text)
    if meant is None:  # whatever it is, it is refused
        with pytest.raises(InvalidParameter):
            fill(everything(), {name: found})
    else:
        assert found == meant
        assert type(found) is type(meant)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(list(everything().manifest.parameters))
VALIDATOR = jsonschema_rs.Draft202012Validator(schema_of(everything()))


@given(NAMES, JSON | st.integers(-3, 120) | st.sampled_from([LARGEST, LARGEST + 1, 3.0, "a", "b"]))
def test_a_value_is_taken_exactly_where_the_schema_takes_it(name: str, value: Any) -> None:
    try:
        fill(everything(), {name: value})
        is_taken = True
    except InvalidParameter:
        is_taken = False
    if isinstance(value, str) and value and not value.strip():
        return  # a blank file name: no schema says that simply
    if isinstance(value, float) and abs(value) > 2**53:
        return  # a whole number that is not exact
    assert is_taken is VALIDATOR.is_valid({name: value})


@given(NAMES, st.text())
def test_no_text_of_a_form_breaks_anything(name: str, text: str) -> None:
    value = from_text(everything().manifest.parameters[name], text)
    with suppress(InvalidParameter):
        fill(everything(), {name: value})


@given(st.integers(0, LARGEST))
def test_every_seed_is_exact_in_json_and_in_a_form(seed: int) -> None:
    workflow = everything()
    meant = from_text(workflow.manifest.parameters["seed"], str(seed))
    assert fill(workflow, {"seed": meant}).nodes["3"].inputs["seed"] == seed
