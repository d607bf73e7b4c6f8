"""Recordings of a real ComfyUI (tests/golden/comfyui), and what to disregard when comparing with them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[2] / "golden" / "comfyui"
RECORDED_BASE = "/srv/comfyui"
ANYTHING = "..."  #: the recorder's mark for parts it cut out

# `nodes` of execution_cached is in the prompt's order, which the replay rearranges (see output_orders).
SET_ORDERED = {"executed", "current_outputs", "dependent_outputs", "nodes"}
_TEMP = re.compile(r"ComfyUI_temp_([a-z]{5})_(\d{5})_")


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return content


@dataclass
class Normaliser:
    """Replaces what differs between runs by what it stands for; one for each side of a comparison.

    Prompt ids that the server made become P0, P1, ... in the order of their submission; the random letters of temp
    files become A, B, ... in the order they are first seen, and their numbers count from the first one seen, because
    the recordings share servers; times, tracebacks, ids of unnamed clients and the base directory become constants;
    lists that ComfyUI makes from sets are sorted.
    """

    base: str = RECORDED_BASE
    ids: dict[str, str] = field(default_factory=dict)
    letters: dict[str, str] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)

    def add_prompt(self, prompt_id: str) -> None:
        if re.fullmatch(r"[0-9a-f]{8}-.*", prompt_id):
            self.ids.setdefault(prompt_id, f"P{len(self.ids)}")

    def clean(self, value: Any) -> Any:
        return self._walk(json.loads(self._text(json.dumps(value))))

    def _text(self, text: str) -> str:
        for known, name in self.ids.items():
            text = text.replace(known, name)
        text = re.sub(r'("sid": )"[0-9a-f]{32}"', r'\1"SID"', text)
        text = re.sub(r'("timestamp": )\d+', r"\g<1>0", text)
        # Above the base directory the recorder renamed folders.
        text = re.sub(r"(full_output_folder|commonpath): .*?\\n", r"\1: (elsewhere)\\n", text)
        text = text.replace(self.base, RECORDED_BASE)
        return _TEMP.sub(self._temp_name, text)

    def _temp_name(self, match: re.Match[str]) -> str:
        key, number = match[1], int(match[2])
        name = self.letters.setdefault(key, chr(ord("A") + len(self.letters)))
        return f"TEMP-{name}-{number - self.first.setdefault(key, number)}"

    def _walk(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._entry(key, inner) for key, inner in value.items()}
        return [self._walk(inner) for inner in value] if isinstance(value, list) else value

    def _entry(self, key: str, value: Any) -> Any:
        if key == "traceback" and value:
            return "(traceback)"
        value = self._walk(value)
        if key in SET_ORDERED and isinstance(value, list):
            return sorted(value)
        if key == "errors" and isinstance(value, list):
            return sorted(value, key=json.dumps)
        return value


def blanked(recorded: Any, actual: Any) -> Any:
    """The actual value with the parts blanked that the recorder cut out."""
    if recorded == ANYTHING:
        return ANYTHING
    if isinstance(recorded, dict) and isinstance(actual, dict):
        return {key: blanked(recorded.get(key), value) for key, value in actual.items()}
    if isinstance(recorded, list) and isinstance(actual, list) and len(recorded) == len(actual):
        return [blanked(left, right) for left, right in zip(recorded, actual, strict=True)]
    return actual


def collapsed(messages: list[Any]) -> list[Any]:
    """Without repeated status messages of the same number: how many there are depends on timing."""
    kept: list[Any] = []
    for message in messages:
        if not (kept and message.get("type") == "status" and message == kept[-1]):
            kept.append(message)
    return kept


def submissions(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The accepted POST /prompt steps."""
    return [
        step["http"]
        for step in steps
        if "http" in step
        and (step["http"]["method"], step["http"]["path"]) == ("POST", "/prompt")
        and "prompt_id" in (step["http"].get("response_json") or {})
    ]


def joined_failures(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bring `ws_open` and the `ws_open_failed` that follows it into one step."""
    joined: list[dict[str, Any]] = []
    for step in steps:
        if "ws_open_failed" in step:
            joined[-1] = joined[-1] | step
        else:
            joined.append(step)
    return joined


def output_orders(steps: list[dict[str, Any]]) -> dict[str, list[str]]:
    """In which order each prompt's outputs were taken. It comes from a set, so it differs from run to run; the
    simulator takes them in the order of the prompt, which the replay therefore arranges accordingly."""
    orders: dict[str, list[str]] = {}
    for step in steps:
        content = step.get("http", {}).get("response_json")
        if not isinstance(content, dict):
            continue
        items = [entry.get("prompt") for entry in content.values() if isinstance(entry, dict)]
        items += [*content.get("queue_running", ()), *content.get("queue_pending", ())]
        for item in items:
            if isinstance(item, list) and len(item) == 5:
                orders[item[1]] = item[4]
    return _executed_orders(steps) | orders


def _executed_orders(steps: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The same from the events, for prompts that no answer shows."""
    orders: dict[str, list[str]] = {}
    for step in steps:
        message = step.get("ws", {})
        if message.get("type") == "executed":
            nodes = orders.setdefault(message["data"]["prompt_id"], [])
            nodes += [message["data"]["node"]] if message["data"]["node"] not in nodes else []
    return orders
