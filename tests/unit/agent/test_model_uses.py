"""Where the uses of models are noted, and how often."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.model_uses import ModelUses, chosen_names
from agent.provision.manifest import ModelEntry
from agent.provision.store import ModelStore
from agent.settings import load_settings
from comfyui.catalog import Catalog
from comfyui.workflow import Workflow

CATALOG = Catalog(
    {
        "Loader": {"input": {"required": {"ckpt_name": [["xl/a.safetensors", "b.safetensors"]]}}},
        "NewLoader": {"input": {"optional": {"lora": ["COMBO", {"options": ["b.safetensors"]}]}}},
        "Text": {"input": {"required": {"text": ["STRING", {}]}}},
    }
)


def workflow(*nodes: tuple[str, str, str]) -> Workflow:
    graph = {
        str(i): {"class_type": kind, "inputs": {name: value}} for i, (kind, name, value) in enumerate(nodes)
    }
    return Workflow.parse(graph)


A = workflow(("Loader", "ckpt_name", "xl/a.safetensors"))


def provisioned(root: Path) -> ModelStore:
    """A models folder as a run leaves it, with two models."""
    store = ModelStore(root)
    store.prepare()
    for path in ("checkpoints/xl/a.safetensors", "loras/b.safetensors"):
        target = store.place(path).target
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"model")
        digest = hashlib.sha256(b"model").hexdigest()
        store.keep(ModelEntry(url="https://models.invalid/m", path=path, sha256=digest, evictable=True))
    return store


def used(store: ModelStore) -> set[str]:
    return {record.path for record in store.records() if store.place(record.path).use.exists()}


@pytest.fixture
def make_uses(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made: list[ModelUses] = []

    def make(**environment: str) -> ModelUses:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        made.append(ModelUses(load_settings()))
        return made[-1]

    yield make
    for uses in made:
        uses.close()


def test_only_what_is_chosen_from_a_list_is_a_name() -> None:
    found = workflow(
        ("Loader", "ckpt_name", "xl/a.safetensors"),
        ("Loader", "ckpt_name", "not-there.safetensors"),
        ("NewLoader", "lora", "b.safetensors"),
        ("Text", "text", "b.safetensors"),
        ("Unknown", "text", "b.safetensors"),
    )
    assert chosen_names(found, CATALOG) == {"xl/a.safetensors", "b.safetensors"}


async def test_models_of_every_folder_that_the_engine_has_are_found(tmp_path: Path, make_uses: Any) -> None:
    stores = [provisioned(tmp_path / name) for name in ("manifest", "root/models", "nas", "mount")]
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"root": str(tmp_path / "manifest"), "models": []}))
    extra = {"nas": {"base_path": "../nas"}, "broken": 1}
    (tmp_path / "root/extra_model_paths.yaml").write_text(yaml.safe_dump(extra))
    (tmp_path / "paths.yaml").write_text(yaml.safe_dump({"mount": {"base_path": str(tmp_path / "mount")}}))
    uses = make_uses(
        AGENT_PROVISION=str(tmp_path / "m.yaml"),
        COMFYUI_ROOT=str(tmp_path / "root"),
        COMFYUI_ARGS=f"--lowvram --extra-model-paths-config {tmp_path}/absent.yaml {tmp_path}/paths.yaml",
    )
    await uses.note(A, CATALOG)
    for store in stores:
        assert used(store) == {"checkpoints/xl/a.safetensors"}, store.root


async def test_use_is_noted_once_in_a_while(tmp_path: Path, make_uses: Any) -> None:
    store = provisioned(tmp_path / "base/models")
    uses = make_uses(COMFYUI_ARGS=f"--base-directory={tmp_path}/base")
    await uses.note(A, CATALOG)
    note = store.place("checkpoints/xl/a.safetensors").use
    os.utime(note, (1, 1))
    await uses.note(A, CATALOG)
    assert note.stat().st_mtime == 1, "the disk is left alone while the note is young"
    await uses.note(workflow(("NewLoader", "lora", "b.safetensors")), CATALOG)
    assert used(store) == {"checkpoints/xl/a.safetensors", "loras/b.safetensors"}
    await make_uses().note(A, CATALOG)
    assert note.stat().st_mtime > 1, "another agent knows nothing of it"


async def test_nothing_is_written_where_nothing_was_provisioned(tmp_path: Path, make_uses: Any) -> None:
    (tmp_path / "models/checkpoints/xl").mkdir(parents=True)
    (tmp_path / "models/checkpoints/xl/a.safetensors").write_bytes(b"model")
    before = sorted(tmp_path.rglob("*"))
    await make_uses(COMFYUI_ROOT=str(tmp_path)).note(A, CATALOG)
    assert sorted(tmp_path.rglob("*")) == before
