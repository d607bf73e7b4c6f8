"""`comfyui-agent run --async`, `status`, `cancel` and `outputs`, as child processes."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest

from agent.client import new_task_id
from tests.integration.cli import graphs
from tests.integration.cli.conftest import Command
from tests.integration.cli.places import Line
from tests.integration.cli.test_run_command import URL, save


@pytest.fixture
def here(command, agent_url) -> Command:
    command.settings = {URL: agent_url}
    return command


def hand_in(command: Command, graph: object, *more: str) -> list[str]:
    done = command.run("run", save(command, graph), "--async", *more)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_tasks_are_handed_over_followed_and_fetched(here):
    ids = hand_in(here, graphs.sampled(steps=20, seed=graphs.fresh_seed()), "--count", "2")
    assert len(set(ids)) == 2
    followed = here.run("status", *ids, "--follow")
    assert (followed.returncode, followed.stderr) == (0, "")
    header, *rows = followed.stdout.splitlines()
    assert header.split()[:3] == ["task", "state", "progress"]
    assert [row.split()[:3] for row in rows] == [[task_id, "succeeded", "100%"] for task_id in ids]
    fetched = here.run("outputs", *ids, "--out", "o")
    assert fetched.stdout.split() == [f"o/{task_id}-0.png" for task_id in ids]
    assert all((here.home / path).read_bytes()[:4] == b"\x89PNG" for path in fetched.stdout.split())
    again = json.loads(here.run("outputs", ids[0], "--out", "o", "--json").stdout)
    assert again == {"task_id": ids[0], "files": [f"o/{ids[0]}-0-2.png"]}


def test_followed_as_json_there_is_a_line_for_each_change(here):
    (task_id,) = hand_in(here, graphs.sampled(steps=60, seed=graphs.fresh_seed()))
    done = here.run("status", task_id, "--follow", "--json")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert records[-1]["state"] == "succeeded"
    assert {record["id"] for record in records} == {task_id}
    assert json.loads(here.run("status", task_id, "--json").stdout) == records[-1]


def test_cancel_ends_tasks_and_status_then_fails(here):
    ids = hand_in(here, graphs.sampled(steps=5000, seed=graphs.fresh_seed()), "--count", "2")
    done = here.run("cancel", *ids)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{task_id} cancelled" for task_id in ids]
    assert here.run("status", ids[0]).returncode == 1
    refused = here.run("outputs", ids[0])
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"Task {ids[0]} is cancelled" in refused.stderr


def test_failed_task_is_shown_with_its_error(here):
    (task_id,) = hand_in(here, graphs.failing(), "--task-id", new_task_id())
    done = here.run("status", task_id, "--follow")
    assert done.returncode == 1
    assert "NodeFailed: " in done.stdout


@pytest.mark.parametrize("name", ["status", "cancel", "outputs"])
def test_unknown_task_does_not_hide_the_others(here, name):
    (task_id,) = hand_in(here, graphs.flat())
    here.run("status", task_id, "--follow")
    done = here.run(name, "nobody", task_id)
    assert done.returncode == 1
    assert "Task nobody: " in done.stderr
    assert task_id in done.stdout


@pytest.mark.parametrize("more", [[], ["--follow"], ["--json"]])
def test_unknown_task_alone_gets_no_table(here, more):
    done = here.run("status", "nobody", *more)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Task nobody: " in done.stderr


def test_id_that_is_none_is_wrong_use(here):
    done = here.run("status", "../x")
    assert done.returncode == 2
    assert "no task-id" in done.stderr


def test_id_of_another_workflow_is_not_taken(here):
    (task_id,) = hand_in(here, graphs.flat())
    done = here.run("run", save(here, graphs.flat(color=7)), "--task-id", task_id)
    assert done.returncode == 1
    assert "TaskConflict" in done.stderr


@pytest.mark.timeout(120)
def test_agent_that_goes_away_in_the_middle_is_told_from_one_that_never_was(here, agent_url):
    (task_id,) = hand_in(here, graphs.sampled(steps=5000, seed=graphs.fresh_seed()))
    with Line(urlsplit(agent_url).port or 0) as line:
        process = here.start("status", task_id, "--follow", "--json", "--url", line.url)
        assert json.loads(process.stdout.readline())["id"] == task_id
    _, err = process.communicate(timeout=30)  # it tries again for a while
    here.run("cancel", task_id)
    assert process.returncode == 3
    assert f"{line.url} cannot be reached: Connection refused" in err
    assert "it went away meanwhile" in err
    assert f"`comfyui-agent outputs {task_id}`" in err
    assert "Does an agent run there?" not in err
