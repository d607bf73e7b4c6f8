"""Which recordings are replayed, and what each needs beside the recording itself. Every allowance says why."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from tests.integration.simulator.transcript import load, submissions

Steps = list[dict[str, Any]]


def picture(color: str, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (16, 16), color).save(buffer, format="PNG")
    return buffer.getvalue()


def nothing(_base: Path) -> None:
    """Most recordings need no files that they do not upload."""


def write(base: Path, name: str, content: bytes) -> None:
    path = base / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@dataclass(frozen=True)
class Scenario:
    """One replay."""

    recording: str
    first_number: int = 0  #: the queue counter at the recording's start
    switches: tuple[str, ...] = ()
    prepare: Callable[[Path], None] = nothing
    before: tuple[
        dict[str, Any], ...
    ] = ()  #: prompts of an earlier recording on the same server that it builds on
    uploads: tuple[bytes, ...] = ()  #: contents of the uploaded files, which the recording leaves out
    bodies: dict[str, str] = field(default_factory=dict)  #: the same for request bodies
    pace: float = 0.0  #: how much of the recorded pauses to keep
    skipped_paths: frozenset[str] = frozenset()
    amend: Callable[[Steps], Steps] = lambda steps: steps
    trim: Callable[[str, Any, Any], Any] = lambda _path, _recorded, actual: actual
    arrange: Callable[[list[Any]], list[Any]] = lambda messages: messages

    def __str__(self) -> str:
        return self.recording


def only_recorded_keys(path: str, recorded: Any, actual: Any) -> Any:
    """The recorder kept only a part of these answers: the keys of /history, or some keys of an entry."""
    if not path.startswith("/history"):
        return actual
    kept, got = recorded.get("response_json"), actual.get("response_json")
    if isinstance(kept, list) and isinstance(got, dict):
        return actual | {"response_json": list(got)}
    return _subset(recorded, actual)


def _subset(recorded: Any, actual: Any) -> Any:
    if isinstance(recorded, dict) and isinstance(actual, dict):
        return {key: _subset(recorded[key], value) for key, value in actual.items() if key in recorded}
    return actual


def status_apart(messages: list[Any]) -> list[Any]:
    """Prompts are queued while the first one is being started. That took 30 ms there and 1 ms here, so the place of
    `status` among that prompt's events differs; order among each kind does not."""
    is_status = [message.get("type") == "status" for message in messages]
    others = [message for message, status in zip(messages, is_status, strict=True) if not status]
    return others + [message for message, status in zip(messages, is_status, strict=True) if status]


def any_queue_length(path: str, recorded: Any, actual: Any) -> Any:
    """How many of the accepted prompts are still to run at the end depends on the speed of the machine."""
    return recorded if path == "/prompt" and "exec_info" in recorded["response_json"] else actual


def labelled_latent(path: str, recorded: Any, actual: Any) -> Any:
    """The simulator's latent says in its header that it is none."""
    return actual | {"response_bytes": recorded["response_bytes"]} if ".latent" in path else actual


def without_huge_upload(steps: Steps) -> Steps:
    """101 MB to find out that 100 MB is the limit takes seconds; `cors_and_limits` shows it with 1 MB."""
    return [step for step in steps if "101 MB" not in step.get("note", "")]


def resubmitted(steps: Steps, submission: int, node_id: str, name: str, value: Any) -> Steps:
    """Undo a slip of the recorder: it wrote down a request body after the test had changed it for the next request."""
    steps = copy.deepcopy(steps)
    submissions(steps)[submission]["json"]["prompt"][node_id]["inputs"][name] = value
    return steps


def as_first_run(steps: Steps) -> Steps:
    return resubmitted(steps, 0, "2", "seconds", 0.05)


def as_first_color(steps: Steps) -> Steps:
    return resubmitted(steps, 0, "1", "color", 521)


def as_history_tells(steps: Steps) -> Steps:
    return resubmitted(resubmitted(steps, 0, "1", "color", 531), 0, "1", "batch_size", 3)


def prompt_of(recording: str) -> dict[str, Any]:
    prompt: dict[str, Any] = submissions(load(recording)["steps"])[0]["json"]["prompt"]
    return prompt


def tiny_models(base: Path) -> None:
    """The recordings' server had this checkpoint alone; an empty file lists it here."""
    write(base, "models/checkpoints/tiny-sd3.safetensors", b"")


def two_models(base: Path) -> None:
    tiny_models(base)
    write(base, "models/checkpoints/tiny-noclip.safetensors", b"")


def unreadable_image(base: Path) -> None:
    tiny_models(base)
    write(base, "input/notimage.png", b"this is text")


def unreadable_image_and_models(base: Path) -> None:
    unreadable_image(base)
    two_models(base)


def files_of_validation(base: Path) -> None:
    two_models(base)
    write(base, "user/comfyui.db", b"no image")
    write(base, "output/simple_00001_.png", picture("red"))


def files_of_view(base: Path) -> None:
    write(base, "output/data.bin", b"abc")
    write(base, "output/page.html", b"<b>x</b>")
    write(base, "output/sub dir/a b.txt", b"hello")


def slow(seconds: float) -> tuple[str, ...]:
    """ImageBlur took half a second to two there; the recording's steps fall into that time."""
    return ("--node-seconds", f"ImageBlur={seconds}")


SLOW = slow(0.2)

SAMPLING = ("--step-seconds", "0.02")
LAB = ("--lab-nodes",)

PICTURE = picture("#80808080", "RGBA")
RED, GREEN, BLUE, YELLOW = map(picture, ("red", "green", "blue", "yellow"))

FRONT_END = frozenset(
    {
        "/",
        "/internal/folder_paths",
        "/internal/files/output",
        "/experiment/models",
        "/view_metadata/checkpoints",
    }
)
"""Routes for ComfyUI's own pages that the simulator does not have; of the folders of models it names one of each kind."""


def own_system(path: str, recorded: Any, actual: Any) -> Any:
    """What necessarily differs: the machine, the numbers of classes and bytes, and the note that this is a simulator."""
    got = actual.get("response_json")
    if path.endswith("/system_stats") and isinstance(got, dict):
        assert got.pop("simulator")
        kept = recorded["response_json"]
        assert got["system"].keys() == kept["system"].keys()
        assert [device.keys() for device in got["devices"]] == [device.keys() for device in kept["devices"]]
        return actual | {"response_json": kept}
    if path == "/object_info":
        return actual | {"response_json": recorded["response_json"]}  # test_object_info compares every class
    return actual


ALL = (
    Scenario("simple_emptyimage_saveimage", 3),
    Scenario("upload_loadimage_scale", 9, uploads=(RED, GREEN, BLUE)),
    Scenario("cached_resubmit", 4),
    Scenario("two_clients", 17, SLOW),
    Scenario("validation_errors", 100, prepare=files_of_validation, trim=any_queue_length),
    Scenario("execution_error", 48, prepare=unreadable_image_and_models),
    Scenario("interrupt_running", 55, SLOW),
    Scenario("interrupt_sampler", 62, ("--step-seconds", "0.05"), prepare=tiny_models),
    Scenario("queue_delete_pending", 64, SLOW, arrange=status_apart),
    Scenario("preview_image_temp", 84, amend=as_first_color),
    Scenario("multiple_outputs_batch_list", 86, amend=as_history_tells),
    Scenario("websocket_reconnect", 74, slow(0.29), pace=0.5),
    Scenario("client_prompt_id", 25, SLOW, trim=only_recorded_keys, arrange=status_apart),
    Scenario("two_prompts_one_client", 13, SLOW),
    Scenario("no_client_id", 0, SAMPLING, prepare=unreadable_image, pace=0.2),
    Scenario("history", 77, SLOW, trim=only_recorded_keys),
    Scenario("view", 83, prepare=files_of_view, uploads=(picture("#ff000080", "RGBA"),)),
    Scenario("uploads", amend=without_huge_upload, uploads=(RED, RED, GREEN, GREEN, RED, BLUE, YELLOW)),
    Scenario("bad_requests", 4),
    Scenario("feature_flags"),
    Scenario("save_image_websocket", 91),
    Scenario("text_outputs", 89),
    Scenario("same_clientid_twice", 70, slow(0.4), pace=0.4),
    Scenario("cache_lru"),
    Scenario("cache_none"),
    Scenario("free", 96, pace=3),
    Scenario("late_websocket", 23, slow(0.4), pace=0.5),
    Scenario("custom_progress", 0, LAB, amend=as_first_run),
    Scenario("custom_blocked", 2, LAB),
    Scenario("custom_expand", 4, LAB),
    Scenario("custom_async_and_ui", 6, LAB),
    Scenario("worker_death_no_inputs"),
    Scenario("worker_death_extra_data_null", pace=1),
    Scenario("origin_host_check"),
    Scenario("ksampler_progress", 93, SAMPLING, prepare=tiny_models),
    Scenario(
        "ksampler_preview_metadata",
        94,
        SAMPLING,
        prepare=tiny_models,
        before=(prompt_of("ksampler_progress"),),
    ),
    Scenario("interrupt_no_client_id", 63, SLOW),
    Scenario("websocket_lost_end", 76, slow(0.25), pace=0.4),
    Scenario("animated_and_video", 90, trim=labelled_latent),
    Scenario("png_metadata"),
    Scenario(
        "cors_and_limits",
        bodies={"<prompt with 1.1 MB of padding>": json.dumps({"padding": "x" * 1_126_400})},
    ),
    Scenario("misc_routes", prepare=tiny_models, skipped_paths=FRONT_END, trim=own_system),
)
