"""`comfyui-agent run` against a real agent on the simulator, as a child process."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from PIL import Image

from agent.client import AgentClient, AgentRequestError, new_task_id
from tests.integration.cli import graphs
from tests.integration.cli.conftest import (
    ROOT,
    SECONDS,
    Command,
    answers,
    cut_when_running,
    free_port,
    serving,
    until,
)
from tests.integration.cli.places import Line
from tests.integration.cli.test_serve import read_all

URL = "COMFYUI_AGENT_URL"
KEY = "COMFYUI_AGENT_API_KEY"


@pytest.fixture
def here(command, agent_url) -> Command:
    """The command, told of an agent by its environment."""
    command.settings = {URL: agent_url}
    return command


def save(command: Command, graph: object, name: str = "workflow.json") -> str:
    (command.home / name).write_text(json.dumps(graph))
    return name


def pictures(command: Command, done: subprocess.CompletedProcess[str]) -> list[Image.Image]:
    """Those that lie at the printed paths."""
    assert done.returncode == 0, done.stderr
    found = []
    for line in done.stdout.splitlines():
        with Image.open(command.home / line) as picture:
            picture.load()
            found.append(picture)
    return found


def seed_of(picture: Image.Image) -> int:
    (seed,) = [
        n["inputs"]["seed"] for n in json.loads(picture.text["prompt"]).values() if "seed" in n["inputs"]
    ]
    return int(seed)


def test_four_runs_of_a_file_make_four_different_pictures(here):
    workflow = save(here, graphs.sampled(steps=2, seed=2**64 - 2))
    done = here.run("run", workflow, "--count", "4", "--out", "pictures/of mine")
    made = pictures(here, done)
    assert done.stderr == ""
    assert [seed_of(picture) for picture in made] == [2**64 - 2, 2**64 - 1, 0, 1]
    assert len({picture.tobytes() for picture in made}) == 4
    assert all(line.startswith("pictures/of mine/t-") for line in done.stdout.splitlines())


def test_named_workflow_takes_parameters_and_says_how_it_went(here):
    (here.home / "prompt.txt").write_text('a "red" fox\n')
    values = [
        "--set",
        "prompt=@prompt.txt",
        "--set",
        f"seed={2**64 - 1}",
        "--set",
        "steps=1",
        "--set",
        "cfg=2.5",
    ]
    done = here.run("run", "text-to-image", *values, "--set", "negative_prompt=5", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["state"], report["error"], len(report["files"])) == ("succeeded", None, 1)
    with Image.open(here.home / report["files"][0]) as picture:
        nodes = json.loads(picture.text["prompt"])
    assert (nodes["6"]["inputs"]["text"], nodes["7"]["inputs"]["text"]) == ('a "red" fox', "5")
    assert nodes["3"]["inputs"]["seed"] == 2**64 - 1
    assert nodes["3"]["inputs"]["cfg"] == 2.5


def test_random_seeds_of_several_runs_are_reported(here):
    done = here.run("run", "text-to-image", "--set", "seed=-1", "--set", "steps=1", "--count", "2", "--json")
    seeds = [json.loads(line)["seeds"]["3"]["seed"] for line in done.stdout.splitlines()]
    assert len(set(seeds)) == 2


@pytest.mark.parametrize("way", ["a name", "a file"])
def test_chosen_seeds_of_several_runs_are_reported(here, way):
    values = ["text-to-image", "--set", "seed=5", "--set", "steps=1"]
    if way == "a file":
        values = [save(here, graphs.sampled(steps=1)), "--set", "3.seed=5"]
    done = here.run("run", *values, "--count", "2", "--json")
    assert [json.loads(line)["seeds"] for line in done.stdout.splitlines()] == [
        {"3": {"seed": 5}},
        {"3": {"seed": 6}},
    ]


@pytest.mark.parametrize("way", ["--image", "--set"])
def test_picture_of_this_machine_is_sent(here, way):
    Image.new("RGB", (4, 4), (255, 0, 0)).save(here.home / "red.png")
    value = "red.png" if way == "--image" else "@red.png"
    (picture,) = pictures(here, here.run("run", "invert", way, f"image={value}"))
    assert picture.getpixel((0, 0)) == (0, 255, 255)


def test_inputs_of_a_file_are_set_and_keep_their_kind(here):
    Image.new("RGB", (4, 4), (0, 0, 255)).save(here.home / "blue.png")
    workflow = str(ROOT / "workflows" / "invert.json")
    values = ["--image", "1.image=blue.png", "--set", "3.filename_prefix=123"]
    (picture,) = pictures(here, here.run("run", workflow, *values))
    assert picture.getpixel((0, 0)) == (255, 255, 0)
    assert json.loads(picture.text["prompt"])["3"]["inputs"]["filename_prefix"] == "123"


def test_workflow_comes_from_a_pipe_in_its_envelope(here):
    envelope = {"prompt": graphs.flat(0x00FF00), "extra_data": {"extra_pnginfo": {"note": "hello"}}}
    process = here.start("run", "-", stdin=subprocess.PIPE)
    out, err = process.communicate(json.dumps(envelope), timeout=SECONDS)
    (picture,) = pictures(here, subprocess.CompletedProcess([], process.returncode, out, err))
    assert json.loads(picture.text["note"]) == "hello"


def test_runs_that_cannot_differ_are_said_to_be_the_same(here):
    done = here.run("run", save(here, graphs.flat()), "--count", "2")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)
    assert "all 2 runs make the same" in done.stderr


def test_same_task_id_gives_what_it_gave_and_overwrites_nothing(here):
    workflow = save(here, graphs.flat(count=2))
    task_id = new_task_id()
    first = here.run("run", workflow, "--task-id", task_id)
    again = here.run("run", workflow, "--task-id", task_id)
    assert first.stdout.split() == [f"comfyui-output/{task_id}-{n}.png" for n in (0, 1)]
    assert again.stdout.split() == [f"comfyui-output/{task_id}-{n}-2.png" for n in (0, 1)]


def test_progress_goes_to_the_terminal_and_paths_to_the_pipe(here):
    leader, follower = pty.openpty()
    workflow = save(here, graphs.sampled(steps=60, seed=graphs.fresh_seed()))
    process = here.start("run", workflow, "--count", "2", stderr=follower)
    os.close(follower)
    shown = read_all(leader)
    out = process.stdout.read()
    process.stdout.close()
    assert process.wait(SECONDS) == 0, shown
    assert "━" in shown
    assert "Sampler" in shown
    assert "100%" in shown
    assert len(out.splitlines()) == 2
    assert "\x1b" not in out


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_terminal_shows_no_progress_where_none_is_wanted(here, option):
    leader, follower = pty.openpty()
    process = here.start("run", save(here, graphs.flat()), option, stderr=follower)
    os.close(follower)
    assert read_all(leader) == ""
    process.stdout.close()
    assert process.wait(SECONDS) == 0


def states(agent_url: str, ids: list[str]) -> list[str]:
    """The states of the tasks that the agent knows."""
    found = []
    with AgentClient(agent_url) as client:
        for task_id in ids:
            with suppress(AgentRequestError):
                found.append(client.task(task_id)["state"])
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_command_cancels_what_it_has_started(here, agent_url, number):
    task_id = new_task_id()
    ids = [f"{task_id}-{n}" for n in (1, 2)]
    workflow = save(here, graphs.sampled(steps=5000, seed=graphs.fresh_seed()))
    process = here.start("run", workflow, "--count", "2", "--task-id", task_id, "--json")
    until(lambda: sorted(states(agent_url, ids)) == ["queued", "running"], "both are there, and one runs")
    process.send_signal(number)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + number, err
    assert states(agent_url, ids) == ["cancelled", "cancelled"]
    assert [json.loads(line)["state"] for line in out.splitlines()] == ["cancelled", "cancelled"]
    assert err == f"comfyui-agent: stopped; cancelled {ids[0]}, {ids[1]}.\n"


def test_command_that_waited_long_enough_cancels_and_says_so(here, agent_url):
    workflow = save(here, graphs.sampled(steps=5000, seed=graphs.fresh_seed()))
    task_id = new_task_id()
    done = here.run("run", workflow, "--task-id", task_id, "--timeout", "2")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"Task {task_id} was not over after 2 s" in done.stderr
    assert states(agent_url, [task_id]) in (["cancelled"], [])


def test_task_that_fails_is_exit_code_1_with_what_the_node_said(here):
    done = here.run("run", save(here, graphs.failing()), "--json")
    assert done.returncode == 1
    assert done.stderr.startswith("comfyui-agent: NodeFailed: ")
    assert done.stderr.count("\n") == 1
    report = json.loads(done.stdout)
    assert (report["state"], report["error"]["code"], report["files"]) == ("failed", "NodeFailed", [])


EDITOR = {"nodes": [], "links": [], "version": 0.4}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.json"], ["none.json", "cannot be read", "No such file"]),
        (["./none"], ["./none", "cannot be read"]),
        (["editor.json"], ["editor.json", "editor's own format", "Export (API)"]),
        (["broken.json"], ["broken.json", "no JSON"]),
        (["no-such-name"], ['no workflow "no-such-name"', "invert", "text-to-image"]),
        (["invert", "--set", "photo=x"], ['no parameter "photo"', "It has: image."]),
        (["invert", "--image", "image=none.png"], ["none.png", "cannot be read"]),
        (["text-to-image", "--set", "steps=many"], ['"steps"', "whole number"]),
        (["text-to-image", "--set", "steps"], ['"steps"', "NAME=VALUE"]),
        (["text-to-image", "--set", "prompt=@none.txt"], ["none.txt", "cannot be read"]),
        (["text-to-image", "--set", "seed=1", "--set", "seed=2"], ['"seed" twice']),
        (["flat.json", "--set", "prompt=x"], ["NODE.INPUT"]),
        (["flat.json", "--set", "7.color=1"], ['no node "7"', "1 (EmptyImage)"]),
        (["flat.json", "--set", "1.colour=1"], ['no input "colour"', "color"]),
        (["flat.json", "--task-id", "a/b"], ['"a/b" is no task-id']),
        (["flat.json", "--out", "flat.json/x"], ["cannot be made"]),
        (["flat.json", "--url", "localhost:9000"], ["no address of an agent"]),
        (["flat.json", "--api-key", "a b"], ["API key"]),
    ],
)
def test_usual_mistake_is_one_clear_sentence_and_exit_code_2(here, arguments, words):
    save(here, graphs.flat(), "flat.json")
    save(here, EDITOR, "editor.json")
    (here.home / "broken.json").write_text("{")
    done = here.run("run", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("comfyui-agent: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("arguments", [["run", "invert"], ["status", "t"], ["cancel", "t"], ["outputs", "t"]])
def test_agent_that_is_not_there_is_exit_code_3_and_says_where_it_was_sought(command, arguments):
    url = f"http://127.0.0.1:{free_port()}"
    done = command.run(*arguments, "--url", url)
    assert done.returncode == 3
    assert f"{url} cannot be reached: Connection refused" in done.stderr
    assert URL in done.stderr


def test_server_that_is_no_agent_is_exit_code_3(command):
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>welcome\x1b[31m</html>")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        done = command.run("status", "t", "--url", f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
        thread.join(SECONDS)
    assert done.returncode == 3
    assert "does not come from an agent" in done.stderr
    assert "\x1b" not in done.stderr


def test_wrong_key_is_exit_code_2_and_never_shown(command, tmp_path):
    (home := tmp_path / "server").mkdir()
    server = Command(home, {"AGENT_API_KEYS": "s3cret", "COMFYUI_URL": f"http://127.0.0.1:{free_port()}"})
    with serving(server, wait=False) as url:
        until(lambda: answers(int(url.rpartition(":")[2])), "it listens")
        for settings in ({}, {KEY: "wr0ng"}):
            command.settings = {URL: url, **settings}
            done = command.run("run", "invert")
            assert done.returncode == 2
            assert KEY in done.stderr
            assert "wr0ng" not in done.stdout + done.stderr
        command.settings = {URL: url, KEY: "s3cret"}
        assert "TaskNotFound" in command.run("status", "nobody").stderr


def test_line_that_breaks_costs_nothing_but_time(here, line: Line, agent_url):
    task_id = new_task_id()
    workflow = save(here, graphs.sampled(steps=200, seed=graphs.fresh_seed()))
    with ThreadPoolExecutor(1) as pool:
        cut = pool.submit(cut_when_running, line, agent_url, task_id)
        done = here.run("run", workflow, "--task-id", task_id, "--url", line.url)
        assert cut.result(SECONDS) >= 1
    assert len(pictures(here, done)) == 1


@pytest.mark.timeout(120)
def test_outputs_in_a_bucket_come_into_the_folder(command, bucket_url, bucket, tmp_path):
    (home := tmp_path / "caller").mkdir()
    caller = Command(home, {URL: bucket_url})
    made = pictures(caller, caller.run("run", save(caller, graphs.two_saves())))
    assert [picture.getpixel((0, 0)) for picture in made] == [(255, 0, 0), (0, 255, 0)]
    assert len(bucket.keys()) == 2


@pytest.mark.timeout(120)
def test_front_is_served_the_same_way(front_url, command):
    command.settings = {URL: front_url, KEY: "callers"}
    done = command.run("run", "text-to-image", "--set", "steps=1", "--count", "2", seconds=60)
    assert len({seed_of(picture) for picture in pictures(command, done)}) == 2
    task_id = command.run("run", "text-to-image", "--async").stdout.strip()
    assert command.run("status", task_id, "--follow").returncode == 0
    assert len(pictures(command, command.run("outputs", task_id))) == 1


def test_files_of_a_run_lie_in_the_folder_and_nowhere_else(here):
    workflow = save(here, graphs.flat())
    before = set(Path(here.home).rglob("*"))
    (path,) = here.run("run", workflow, "--out", "o").stdout.split()
    assert set(Path(here.home).rglob("*")) - before == {here.home / "o", here.home / path}


@pytest.mark.parametrize("times", [1, 3])
def test_agent_that_is_silent_does_not_hold_a_stopped_command(here, times):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        process = here.start("run", save(here, graphs.flat()), "--url", url)
        connection, _ = server.accept()
        with connection:
            for _ in range(times):
                process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=2 * SECONDS)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
