"""The messages of a real ComfyUI, as the recordings in tests/golden/comfyui hold them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[2] / "golden" / "comfyui"


@cache
def steps(name: str) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads((GOLDEN / f"{name}.json").read_text())["steps"]
    return content


def names() -> list[str]:
    return sorted(path.stem for path in GOLDEN.glob("*.json") if path.stem != "object_info")


@cache
def object_info() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GOLDEN / "object_info.json").read_text())
    return content


def messages(name: str, connection: str | None = None) -> Iterator[str | bytes]:
    """Every WebSocket message of a recording, as it was on the wire."""
    for step in steps(name):
        if "ws" in step and connection in (None, step.get("conn")):
            yield wire(step["ws"])


def wire(message: dict[str, Any]) -> str | bytes:
    """The recorder kept the beginning of a binary message and its length: the picture's data is made up."""
    binary = message.get("binary")
    if binary is None:
        return json.dumps(message)
    head = bytes.fromhex(binary["head_hex"])
    if binary["event"] == 3:
        node = binary["node_id"].encode()
        head = struct.pack(">II", 3, len(node)) + node + binary["text"].encode()
    elif binary["event"] == 4:
        # The recording says how long the metadata was; json.dumps writes it as ComfyUI does.
        about = json.dumps(binary["metadata"]).encode()
        assert len(about) == binary["metadata_bytes"]
        head = struct.pack(">II", 4, len(about)) + about + bytes.fromhex(binary["image_head_hex"])
    return head.ljust(binary["bytes"], b"\0")


def submissions(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Prompt id and graph of every accepted POST /prompt."""
    found = []
    for step in steps(name):
        http = step.get("http", {})
        is_accepted = (http.get("method"), http.get("path"), http.get("status")) == ("POST", "/prompt", 200)
        if is_accepted and "json" in http:
            found.append((http["response_json"]["prompt_id"], http["json"]["prompt"]))
    return found


def history(name: str, prompt_id: str) -> dict[str, Any]:
    """The history entry that was recorded for a prompt."""
    path = f"/history/{prompt_id}"
    entries = [s["http"]["response_json"] for s in steps(name) if s.get("http", {}).get("path") == path]
    entry: dict[str, Any] = entries[-1][prompt_id]
    return entry
