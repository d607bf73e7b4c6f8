"""`comfyui-agent demo`, as somebody runs it who has just installed it."""

from __future__ import annotations

import base64
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import which

import pytest
from PIL import Image

from agent.client import AgentClient
from agent.demo.pictures import WrongPicture, check_negative, check_postcard, draw_photo, to_png
from agent.demo.service import readable
from agent.demo.tour import load_workflow
from tests.integration.cli.conftest import ROOT, SECONDS, Command, until
from tests.integration.cli.test_serve import read_all

FILES = {
    "1-negative.png": (640, 400),
    "2-postcard.png": (720, 480),
    "3-text-to-image.png": (512, 512),
}

#: What a user may have set for other reasons; each would break the demo if it came through.
FOREIGN = {
    "AGENT_TYPO": "1",
    "AGENT_PORT": "1",
    "AGENT_API_KEYS": "secret",
    "COMFYUI_URL": "http://127.0.0.1:1",
    "COMFYUI_ARGS": "--bogus",
    "REDIS_URL": "redis://127.0.0.1:1",
    "FC_FUNCTION_NAME": "f",
    "FC_INSTANCE_ID": "i",
    "HTTP_PROXY": "http://127.0.0.1:1",
    "http_proxy": "http://127.0.0.1:1",
    "LC_ALL": "C",
    "PYTHONIOENCODING": "ascii",
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The demo at its normal pace, in a pipe: (process, seconds, command)."""
    (home := tmp_path_factory.mktemp("demo") / "home").mkdir()
    command = Command(home, FOREIGN)
    began = time.monotonic()
    done = command.run("demo", "--out", "../pictures/of the demo", seconds=60)
    assert done.returncode == 0, done.stderr
    return done, time.monotonic() - began, command


def test_demo_takes_seconds_and_says_nothing_on_stderr(shown):
    done, seconds, _ = shown
    assert seconds < 30
    assert done.stderr == ""


def test_pictures_lie_whole_in_the_folder_that_is_named(shown):
    done, _, command = shown
    (folder,) = re.findall(r"^The pictures are in (.*)$", done.stdout, re.MULTILINE)
    assert folder == str(command.home.parent / "pictures" / "of the demo")
    assert sorted(path.name for path in Path(folder).iterdir()) == sorted(FILES)
    for name, size in FILES.items():
        with Image.open(f"{folder}/{name}") as picture:
            picture.load()
            assert picture.size == size
    with Image.open(f"{folder}/1-negative.png") as picture:
        check_negative(picture.convert("RGB"))


def test_nothing_is_left_but_the_pictures(shown):
    _, _, command = shown
    assert not command.processes()
    assert not list(command.home.iterdir())
    assert not list(command.home.with_name("home-tmp").iterdir())


def test_progress_in_a_pipe_is_plain_lines_of_node_titles(shown):
    out = shown[0].stdout
    assert out.isascii()
    assert "\x1b" not in out
    assert "\r" not in out
    for line in ("Negative (base64 input, answer awaited)", "   67%  Save negative", "  100%  done"):
        assert f"{line}\n" in out, out
    assert re.search(r"^ +\d+%  Sampler$", out, re.MULTILINE)


def test_table_has_each_task_with_time_and_file(shown):
    for name in FILES:
        assert re.search(rf"^\S.*\d\.\d s +{re.escape(name)} +\d+ KB$", shown[0].stdout, re.MULTILINE)


@pytest.mark.skipif(which("curl") is None, reason="the commands need curl")
def test_printed_commands_work_while_the_service_runs(shown, agent_url, tmp_path):
    lines = re.findall(r"^  (curl .*)$", shown[0].stdout, re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        words = shlex.split(line.replace(f"http://localhost:{FOREIGN['AGENT_PORT']}/", f"{agent_url}/"))
        subprocess.run([*words, "--fail", "--noproxy", "*"], cwd=tmp_path, check=True, timeout=SECONDS)
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (512, 512)


def test_printed_serve_command_is_this_one(shown):
    (line,) = re.findall(r"^  (\S.*) serve$", shown[0].stdout, re.MULTILINE)
    done = subprocess.run(
        [*shlex.split(line), "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    )
    assert done.stdout.startswith("comfyui-agent ")


def test_terminal_gets_bars(command):
    leader, follower = pty.openpty()
    process = command.start("demo", "--pace", "0", stdout=follower, stderr=follower, stdin=follower)
    os.close(follower)
    shown = read_all(leader)
    assert process.wait(SECONDS) == 0, shown
    assert "━" in shown
    assert "\x1b[" in shown
    assert sorted(path.name for path in (command.home / "demo-output").iterdir()) == sorted(FILES)
    assert not command.processes()


@pytest.fixture
def started(command):
    """A demo in the middle of its first task: (process, command)."""
    process = command.start("demo", "--pace", "3", start_new_session=True)
    lines = iter(process.stdout.readline, "")
    assert any("Photo" in line for line in lines), process.stderr.read()
    yield process, command
    process.stdout.close()
    process.stderr.close()
    process.wait(SECONDS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_that_is_stopped_leaves_nothing_running(started, number):
    process, command = started
    assert len(command.processes()) == 3
    process.send_signal(number)
    assert process.wait(SECONDS) == 128 + number
    assert not command.processes()
    assert not list(command.home.with_name("home-tmp").iterdir())
    assert "Traceback" not in process.stderr.read()


@pytest.mark.skipif(which("setpriv") is None, reason="without it the kernel is not asked to")
def test_demo_that_is_killed_leaves_nothing_running(started):
    process, command = started
    process.kill()
    until(lambda: not command.processes(), "all of it is gone")


def test_agent_that_dies_fails_the_demo_with_its_last_words(started):
    process, command = started
    (agent,) = [
        pid for pid, line in command.processes().items() if "agent.cli serve" in line and pid != process.pid
    ]
    os.kill(agent, signal.SIGKILL)
    assert process.wait(SECONDS) == 1
    error = process.stderr.read()
    assert error.startswith(
        "comfyui-agent: the demo failed: The agent stopped by itself, with exit code -9.\n"
    )
    assert "info: engine.ready" in error
    assert not command.processes()


def test_demo_that_hangs_ends_in_time(command):
    code = "import sys; from agent.demo import tour; tour.DEADLINE_SECONDS = 1.5; sys.exit(tour.run_demo('out', 3))"
    argv = [sys.executable, "-c", code]
    done = subprocess.run(
        argv,
        env=command.environ,
        cwd=command.home,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 1
    assert "the demo failed: it was not done after 1.5 s." in done.stderr
    assert not command.processes()


def test_folder_that_cannot_be_made_fails_before_anything_is_started(command):
    (command.home / "file").touch()
    done = command.run("demo", "--out", "file/pictures")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be made" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("check", [check_negative, check_postcard])
def test_picture_that_is_another_one_is_noticed(check):
    with pytest.raises(WrongPicture):
        check(draw_photo())


def test_log_line_is_shown_as_a_person_reads_it():
    assert readable('{"timestamp": "x", "level": "info", "event": "a.b", "n": 1}') == "info: a.b n=1"
    assert readable("Traceback (most recent call last):") == "Traceback (most recent call last):"
    assert readable("[1]") == "[1]"


@pytest.mark.parametrize("name", ["invert", "postcard", "text-to-image"])
def test_ready_workflow_uses_classes_models_and_titles_that_exist(agent_url, name):
    """Run it with pictures in its loaders: the engine checks classes, links and the checkpoint's name."""
    workflow = load_workflow(name)
    assert all(node["_meta"]["title"] for node in workflow.values())
    for node in workflow.values():
        if node["class_type"] == "LoadImage":
            assert node["inputs"]["image"] == "example.png"  # ComfyUI's own
            node["inputs"]["image"] = (
                "data:image/png;base64," + base64.b64encode(to_png(draw_photo())).decode()
            )
    with AgentClient(agent_url) as client:
        assert len(client.run(workflow).images()) == 1
