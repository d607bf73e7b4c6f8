"""A wrong manifest is told in sentences that name file, entry and remedy; nothing that may be secret is repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from agent.provision.errors import ManifestError
from agent.provision.manifest import Manifest, load_manifest

ROOT = Path(__file__).parents[3]
MODEL = {"url": "https://host/model?token=SECRET", "path": "vae/model.safetensors", "sha256": "a" * 64}


@pytest.fixture
def load(tmp_path: Path):
    def load(document: object) -> Manifest:
        file = tmp_path / "models.yaml"
        file.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
        return load_manifest(file)

    return load


@pytest.fixture
def faults(load):
    def faults(document: object) -> list[str]:
        with pytest.raises(ManifestError) as caught:
            load(document)
        assert "SECRET" not in str(caught.value.args)
        return [sentence.partition("models.yaml: ")[2] for sentence in caught.value.args]

    return faults


def test_whole_manifest_is_read(load):
    manifest = load(
        {
            "root": "/mnt/models",
            "disk_budget": "1.5 GB",
            "parallel": 2,
            "tokens": {"HuggingFace.co": "HF_TOKEN"},
            "models": [MODEL | {"sha256": "A" * 64, "bytes": 2048, "evictable": True}],
            "custom_nodes": ["comfyui-impact-pack@8.0.0"],
        }
    )
    assert manifest.disk_budget == 1_500_000_000
    assert manifest.tokens == {"huggingface.co": "HF_TOKEN"}
    (model,) = manifest.models
    assert (model.bytes, model.evictable, model.sha256) == (2048, True, "a" * 64)


def test_empty_manifest_wants_nothing(load):
    assert load("") == Manifest()


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../x", "a/../x", "a//b", "./x", "a/", "", "a\\b", "a\nb", ".hidden", "a/.x", "x" * 250],
)
def test_path_that_leaves_the_models_folder_or_is_no_name_is_refused(faults, path):
    (fault,) = faults({"models": [MODEL | {"path": path}]})
    assert fault.startswith("models[0]")
    assert "path" in fault


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"url": "ftp://host/x"}, "models[0] (vae/model.safetensors): url must begin with http"),
        ({"url": "https:///x"}, "url must"),
        ({"url": "https://user:SECRET@host/x"}, "must not hold credentials"),
        ({"url": "https://host:SECRET/x"}, "url is malformed"),
        ({"sha256": "SECRET"}, "sha256 must be 64 hexadecimal digits"),
        ({"sha256": 12}, "sha256 must be text; put it in quotes"),
        ({"sh256": "a"}, "sh256 is no known name"),
        ({"bytes": "SECRET"}, "bytes should be a valid integer"),
        ({"bytes": -1}, "bytes should be greater than 0"),
        ({"evictable": "maybe"}, "evictable should be a valid boolean"),
    ],
)
def test_wrong_value_is_named_with_its_entry_and_the_remedy(faults, change, words):
    (fault,) = faults({"models": [MODEL | change]})
    assert words in fault
    assert fault.startswith("models[0] (vae/model.safetensors)")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"models": [{}]}, "models[0]: url is missing"),
        ({"models": ["x"]}, "models[0] must be a mapping"),
        ([1], "must be a mapping"),
        ({"model": []}, "model is no known name"),
        ({"disk_budget": "SECRET"}, "disk_budget must be a number of bytes, or one with"),
        ({"root": "models"}, "root must be an absolute path"),
        ({"tokens": {"host": "hf_SECRET"}}, "the NAME of an environment variable"),
        ({"custom_nodes": ["--x@1"]}, "must be NAME@VERSION"),
        ({"custom_nodes": ["x"]}, "must be NAME@VERSION"),
        ({"models": [MODEL, MODEL]}, "path of two models"),
        ({"models": [MODEL], "disk_budget": 5}, "needs `bytes`"),
        ({"models": [MODEL | {"bytes": 7}], "disk_budget": 5}, "disk_budget is 5"),
        ("a: [", "is not YAML: line 1"),
    ],
)
def test_wrong_document_is_one_sentence(faults, document, words):
    assert words in faults(document)[0]


def test_every_fault_of_a_manifest_is_told_at_once(faults):
    assert len(faults({"models": [MODEL | {"url": "x", "sha256": "y"}], "parallel": 0})) == 3


def test_manifest_that_is_not_there_or_no_text_is_a_sentence(tmp_path):
    with pytest.raises(ManifestError, match="cannot be read: No such file"):
        load_manifest(tmp_path / "none.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ManifestError, match="not text in UTF-8"):
        load_manifest(tmp_path / "binary")


def test_example_shows_every_name_there_is():
    text = (ROOT / "deploy/models.yaml").read_text()
    names = {*Manifest.model_fields, *Manifest.model_fields["models"].annotation.__args__[0].model_fields}
    assert {name for name in names if f"{name}:" not in text} == set()


def test_example_is_valid_as_it_is_and_with_its_comments_taken_away(tmp_path):
    example = ROOT / "deploy/models.yaml"
    load_manifest(example)
    lines = [line.removeprefix("# ") if line.startswith("# ") else line for line in text_of_entries(example)]
    (tmp_path / "models.yaml").write_text("\n".join(lines))
    manifest = load_manifest(tmp_path / "models.yaml")
    assert manifest.models
    assert manifest.custom_nodes


def text_of_entries(example: Path) -> list[str]:
    """The example without the sentences, which begin with `##`."""
    return [line for line in example.read_text().splitlines() if not line.startswith("##")]
