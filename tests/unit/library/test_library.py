"""Folders of named workflows, and the manifests in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.errors import InvalidManifest, WorkflowNotFound
from agent.library.library import SHIPPED, Library, NamedWorkflow
from agent.library.manifest import Manifest, english, to_yaml
from tests.unit.library.shelf import GRAPH, write

TITLE = {"title": "T"}


def test_every_shipped_workflow_has_a_whole_manifest_in_three_languages() -> None:
    found = Library().all()
    assert [named.name for named in found] == sorted(path.stem for path in SHIPPED.glob("*.json"))
    for named in found:
        assert (SHIPPED / f"{named.name}.yaml").is_file()
        manifest = named.manifest
        for text in (manifest.title, manifest.description, *(p.title for p in manifest.parameters.values())):
            assert isinstance(text, dict), named.name
            assert text.keys() == {"en", "zh", "ja"}, named.name
        assert manifest.tags, named.name


def test_every_shipped_workflow_is_in_the_documents() -> None:
    page = (SHIPPED.parent / "docs/workflows.md").read_text()
    table = page.partition("## The shipped ones")[2].partition("## Files")[0]
    first_cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    named = [name for cell in first_cells for name in re.findall(r"`([a-z-]+)`", cell)]
    assert sorted(named) == [found.name for found in Library().all()]


def test_a_folder_of_the_operator_adds_to_the_shipped_ones_and_wins(tmp_path: Path) -> None:
    write(tmp_path, "mine", manifest=TITLE)
    write(tmp_path, "invert", manifest={"title": "Another"})
    library = Library([SHIPPED, tmp_path])
    assert {"mine", "invert", "postcard"} <= {named.name for named in library.all()}
    assert library.get("invert").manifest.title == "Another"


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    write(tmp_path, "mine", manifest={"title": "Before"})
    library = Library([tmp_path])
    assert library.get("mine").manifest.title == "Before"
    assert library.get("mine") is library.get("mine")
    write(tmp_path, "mine", manifest={"title": "And after"})
    assert library.get("mine").manifest.title == "And after"
    (tmp_path / "mine.json").unlink()
    with pytest.raises(WorkflowNotFound):
        library.get("mine")


@pytest.mark.parametrize("name", ["nobody", "", "../invert", "invert.json", "a/b", "x" * 65, "\x00", "é"])
def test_a_name_that_is_none_is_not_found(name: str) -> None:
    with pytest.raises(WorkflowNotFound):
        Library().get(name)


def test_a_broken_manifest_is_left_out_of_the_list_and_named_when_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "good", manifest=TITLE)
    (tmp_path / "bad.json").write_text(json.dumps(GRAPH))
    (tmp_path / "bad.yaml").write_text("title: [")
    library = Library([tmp_path, tmp_path / "no-such-folder"])
    assert [named.name for named in library.all()] == ["good"]
    with pytest.raises(InvalidManifest, match=r"bad\.yaml is not YAML"):
        library.get("bad")


def test_a_picture_beside_the_workflow_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(b"x")
    assert write(tmp_path, "mine").picture == tmp_path / "mine.png"


def test_an_envelope_is_read_as_well_as_a_bare_graph(tmp_path: Path) -> None:
    graph = {"title": "From the file", "prompt": GRAPH}
    found = write(tmp_path, "mine", graph)
    assert found.workflow.graph == GRAPH
    assert found.manifest.title == "From the file"


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ("[1, 2]", "valid dictionary"),
        ("", "valid dictionary"),
        ("title: x\ntitel: y", "titel: unknown word"),
        ({}, "title"),
        ({"title": {"zh": "x"}}, "needs English"),
        ({"title": {"en": "x", "xx": "y"}}, "title"),
        ({**TITLE, "outputs": ["99"]}, '"outputs" names node "99"'),
        ("!!python/object/apply:os.system [ls]", "is not YAML"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused_with_the_reason(
    tmp_path: Path, manifest: Any, reason: str
) -> None:
    with pytest.raises(InvalidManifest, match=reason):
        write(tmp_path, "bad", manifest=manifest)


@pytest.mark.parametrize(
    ("parameter", "reason"),
    [
        ({"type": "text", "sets": "99.text"}, 'no node "99"'),
        ({"type": "text", "sets": "text"}, "names no input"),
        ({"type": "text", "sets": []}, "sets"),
        ({"type": "words", "sets": "6.text"}, "type"),
        ({"type": "text", "sets": "6.text", "minimum": 1}, "are for integer and number"),
        ({"type": "choice", "sets": "3.sampler_name"}, "has choices"),
        ({"type": "text", "sets": "6.text", "choices": ["a"]}, "has choices"),
        ({"type": "image", "sets": "6.text", "mask_of": "x"}, "mask_of is for a mask"),
        ({"type": "mask", "sets": "6.text", "mask_of": "x"}, "no image parameter"),
        ({"type": "seed", "sets": "3.steps"}, "called seed or noise_seed"),
        ({"type": "integer", "sets": "3.steps", "minimum": 5, "maximum": 1}, "larger than maximum"),
        ({"type": "integer", "sets": "3.steps", "maximum": 10}, "20 is not a whole number up to 10"),
        ({"type": "integer", "sets": "3.steps", "default": "x"}, "default"),
        ({"type": "integer", "sets": "6.text"}, "a cat is not a whole number"),
        ({"type": "integer", "sets": "3.steps", "minimum": "1"}, "minimum"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused_with_the_reason(
    tmp_path: Path, parameter: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidManifest, match=reason):
        write(tmp_path, "bad", manifest={**TITLE, "parameters": {"p": {"title": "P", **parameter}}})


def test_two_parameters_may_not_set_the_same_input(tmp_path: Path) -> None:
    both = {name: {"title": name, "type": "text", "sets": "6.text"} for name in ("a", "b")}
    with pytest.raises(InvalidManifest, match=r'"a" and "b" both set 6\.text'):
        write(tmp_path, "bad", manifest={**TITLE, "parameters": both})


@pytest.mark.parametrize("name", ["with space", "a.b", "", "ü"])
def test_a_parameters_name_is_plain(tmp_path: Path, name: str) -> None:
    parameter = {"title": "P", "type": "text", "sets": "6.text"}
    with pytest.raises(InvalidManifest, match="no name of a parameter"):
        write(tmp_path, "bad", manifest={**TITLE, "parameters": {name: parameter}})


@pytest.mark.parametrize("graph", [[], {}, {"nodes": []}, {"1": {"class_type": "X"}}])
def test_a_file_that_is_no_workflow_is_refused(tmp_path: Path, graph: Any) -> None:
    with pytest.raises(InvalidManifest, match=r"bad\.json"):
        write(tmp_path, "bad", graph, TITLE)


def test_node_ids_that_yaml_reads_as_numbers_are_ids(tmp_path: Path) -> None:
    found = write(tmp_path, "mine", manifest="title: T\noutputs: [9]")
    assert found.manifest.outputs == ["9"]


@pytest.mark.parametrize("named", Library().all(), ids=lambda named: named.name)
def test_a_manifest_survives_being_written(named: NamedWorkflow) -> None:
    assert Manifest.model_validate(yaml.safe_load(to_yaml(named.manifest))) == named.manifest


def test_english_is_the_text_for_those_who_cannot_choose() -> None:
    assert english("plain") == english({"en": "plain", "zh": "x"}) == "plain"
