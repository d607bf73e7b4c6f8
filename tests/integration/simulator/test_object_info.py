"""Every node class that the simulator has is described as ComfyUI describes it."""

from __future__ import annotations

from typing import Any

from tests.integration.simulator.conftest import Connect, Start
from tests.integration.simulator.transcript import load

FROM_FOLDERS = {
    "ckpt_name",
    "lora_name",
    "control_net_name",
    "unet_name",
    "clip_name",
    "clip_name1",
    "clip_name2",
    "vae_name",
    "model_name",
    "image",
    "file",
}
"""Inputs whose options are files, which differ from machine to machine."""

RECORDED_OPTIONS = 5  #: the recorder cut every option list to so many entries

MISSING = {"PorterDuffImageComposite", "SaveSVGNode", "LoadLatent"}
"""Recorded classes that the simulator does not offer."""


def comparable(info: dict[str, Any]) -> dict[str, Any]:
    """The entry with option lists cut as in the recording, and those of files emptied."""
    sections = info["input"].items()
    shown = {section: {name: _cut(name, one) for name, one in items.items()} for section, items in sections}
    return info | {"input": shown}


def _cut(name: str, shown: Any) -> Any:
    if not isinstance(shown, list):
        return shown
    return [_options(name, part) for part in shown]


def _options(name: str, part: Any) -> Any:
    if isinstance(part, list):
        return [] if name in FROM_FOLDERS else part[:RECORDED_OPTIONS]
    if isinstance(part, dict) and "options" in part:
        return part | {"options": _options(name, part["options"])}
    return part


async def test_node_classes_equal_the_recorded_ones(start: Start, connect: Connect) -> None:
    info = await (await connect(await start())).get("/object_info")
    recorded = load("object_info")
    assert recorded.keys() - info.keys() == MISSING
    for name in recorded.keys() & info.keys():
        assert comparable(info[name]) == comparable(recorded[name]), name
