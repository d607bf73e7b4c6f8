"""`comfyui-agent check-images` on folders, as an operator calls it."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from agent.cli import app
from tests.labelled.models import write_color_reader

COMMAND = Path(sys.executable).parent / "comfyui-agent"


Check = Callable[..., Result]


@pytest.fixture
def check(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Calls the command in the folder with these arguments, and settings as its environment."""
    for name in tuple(os.environ):
        if name.startswith(("AGENT_", "COMFYUI_", "FC_", "REDIS_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(folder)

    def call(*arguments: str, **settings: str) -> Result:
        try:
            return CliRunner().invoke(app, ["check-images", *arguments], env=settings)
        finally:
            structlog.reset_defaults()

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures = tmp_path / "pictures"
    (pictures / "more").mkdir(parents=True)
    Image.linear_gradient("L").save(pictures / "gradient.png")
    Image.new("RGB", (64, 64), (255, 0, 0)).save(pictures / "more" / "red.JPG")
    Image.new("RGB", (64, 64)).save(pictures / "black.webp")
    (pictures / "notes.txt").write_text("no picture")
    return tmp_path


def onnx(folder: Path) -> dict[str, str]:
    """Settings of a model for which red is alarming."""
    write_color_reader(folder / "model.onnx")
    return {
        "AGENT_SAFETY_IMAGE_CLASSIFIERS": "onnx",
        "AGENT_SAFETY_ONNX_MODEL": str(folder / "model.onnx"),
        "AGENT_SAFETY_ONNX_LABELS": "alarm,green,blue",
        "AGENT_SAFETY_ONNX_THRESHOLDS": "alarm=0.9",
        "AGENT_SAFETY_ONNX_SCORES": "plain",
        "AGENT_SAFETY_ONNX_MEAN": "0,0,0",
        "AGENT_SAFETY_ONNX_STD": "1,1,1",
    }


def test_report_has_each_picture_and_each_step(check: Check, folder: Path) -> None:
    ran = check("pictures", "--report", "report.jsonl", **onnx(folder))
    assert (ran.exit_code, ran.stderr) == (0, ""), "no bar without a terminal"
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in (folder / "report.jsonl").read_text().splitlines()
    ]
    assert [(row["file"], row["found"]) for row in rows] == [
        ("black.webp", "black"),
        ("gradient.png", None),
        ("more/red.JPG", "alarm"),
    ]
    assert [(v["step"], v["category"]) for v in rows[2]["verdicts"]] == [
        ("failed-image", "flat"),
        ("onnx", "alarm"),
    ]
    assert re.findall(r"^ +(\d+)  (\w+)$", ran.stdout, re.MULTILINE) == [
        ("1", "black"),
        ("1", "fine"),
        ("1", "alarm"),
    ]


def test_report_as_a_table_and_how_well_labels_were_met(check: Check, folder: Path) -> None:
    rows = "file,label\nblack.webp,black\ngradient.png,flat\nmore/red.JPG,flat\n"
    (folder / "labels.csv").write_text(rows, encoding="utf-8-sig")  # as spreadsheets write it
    ran = check("pictures", "--report", "report.csv", "--labels", "labels.csv")
    assert ran.exit_code == 0, ran.stderr
    with (folder / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["found"], row["step"]) for row in rows] == [
        ("black.webp", "black", "failed-image"),
        ("gradient.png", "", "failed-image"),
        ("more/red.JPG", "flat", "failed-image"),
    ]
    assert re.search(r"^anything +3 +2 +2 +100\.0% +66\.7%$", ran.stdout, re.MULTILINE)
    assert re.search(r"^flat +2 +1 +1 +100\.0% +50\.0%$", ran.stdout, re.MULTILINE)


def test_picture_that_cannot_be_judged_is_told(check: Check, folder: Path) -> None:
    (folder / "pictures" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    ran = check("pictures")
    assert ran.exit_code == 1
    rows = [json.loads(line) for line in (folder / "check-images.jsonl").read_text().splitlines()]
    assert {"file": "broken.png", "found": "unreadable", "verdicts": []} in rows
    silent = {
        "AGENT_SAFETY_IMAGE_CLASSIFIERS": "http",
        "AGENT_SAFETY_IMAGE_URL": "http://127.0.0.1:9/?key=hook-secret",
        "AGENT_SAFETY_CLASSIFIER_SECONDS": "0.1",
    }
    (folder / "pictures" / "broken.png").unlink()
    ran = check("pictures", **silent)
    assert ran.exit_code == 1
    report = (folder / "check-images.jsonl").read_text()
    assert '"no_answer": {"image-hook":' in report
    assert "hook-secret" not in report + ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        (["missing"], {}, "No such file"),
        (["pictures", "--report", "no/such/folder.csv"], {}, "No such file"),
        (["pictures", "--labels", "pictures/notes.txt"], {}, "columns file and label"),
        (["pictures"], {"AGENT_SAFETY_IMAGE_CLASSIFIERS": "http"}, "AGENT_SAFETY_IMAGE_URL"),
    ],
)
def test_wrong_use(check: Check, arguments: list[str], settings: dict[str, str], words: str) -> None:
    ran = check(*arguments, **settings)
    assert ran.exit_code == 2
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr


def test_bar_on_a_terminal(folder: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"}
    with subprocess.Popen(
        [COMMAND, "check-images", "pictures"],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    ) as ran:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # Linux' way to say that the other side is closed
            pass
        assert ran.wait(timeout=60) == 0
    os.close(ours)
    assert b"3/3" in shown
