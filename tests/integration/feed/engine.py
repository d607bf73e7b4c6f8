"""A simulator that outlives a test, and what is run on it."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.ports import free_port

START_SECONDS = 15

_numbers = itertools.count(1)


class Engine:
    """A simulator process; its faults are set from outside."""

    def __init__(self, base: Path, *switches: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [
            sys.executable,
            "-m",
            "comfyui.simulator",
            "--port",
            str(self.port),
            "--base-directory",
            str(base),
        ]
        base.mkdir(parents=True, exist_ok=True)
        self._log = (base / "log").open("wb")
        self._process = subprocess.Popen(
            [*command, "--lab-nodes", *switches], stderr=self._log, stdin=subprocess.DEVNULL
        )
        self._wait()

    def set_faults(self, *specs: str) -> None:
        body = json.dumps({"faults": specs}).encode()
        with urllib.request.urlopen(f"{self.url}/simulator/faults", body, timeout=5) as answer:
            assert answer.status == 200

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)
        self._log.close()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/prompt", timeout=1):
                    return
            except OSError:
                assert self._process.poll() is None, "the simulator ended"
                assert time.monotonic() < deadline, "the simulator does not start"
                time.sleep(0.02)  # a process gives no signal that could be waited for


def unique() -> int:
    """A number that makes a graph unlike all others, so that nothing of it is cached."""
    return next(_numbers)


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def empty(**inputs: Any) -> dict[str, Any]:
    return node("EmptyImage", **{"width": 8, "height": 8, "batch_size": 1, "color": unique()} | inputs)


def quick() -> dict[str, Any]:
    """Node 1 is saved by node 9; takes a few milliseconds."""
    return {"1": empty(), "9": node("SaveImage", images=["1", 0], filename_prefix="feed")}


def steps(count: int = 3, seconds: float = 0.02) -> dict[str, Any]:
    """As `quick`, but node 2 takes its time and reports each step."""
    graph = quick() | {"2": node("LabSteps", image=["1", 0], steps=count, seconds=seconds)}
    graph["9"]["inputs"]["images"] = ["2", 0]
    return graph


def silent(seconds: float) -> dict[str, Any]:
    """As `quick`, but node 2 takes its time without a word."""
    graph = quick() | {"2": node("LabSleep", image=["1", 0], seconds=seconds)}
    graph["9"]["inputs"]["images"] = ["2", 0]
    return graph


def streamed(count: int = 3) -> dict[str, Any]:
    """Node 9 sends `count` pictures over the WebSocket and keeps none."""
    return {"1": empty(batch_size=count), "9": node("SaveImageWebsocket", images=["1", 0])}


def sampled(count: int = 3) -> dict[str, Any]:
    """KSampler is node 3; it sends previews. Node 9 saves."""
    settings = {
        "seed": unique(),
        "steps": count,
        "cfg": 7.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
    }
    links = {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}
    return {
        "3": node("KSampler", **settings, **links),
        "4": node("CheckpointLoaderSimple", ckpt_name="v1-5-pruned-emaonly.safetensors"),
        "5": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "6": node("CLIPTextEncode", clip=["4", 1], text="a cat"),
        "7": node("CLIPTextEncode", clip=["4", 1], text=""),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", images=["8", 0], filename_prefix="feed"),
    }
