"""The client against a real agent on the simulator."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import closing

import pytest
from PIL import Image

from agent.client import AgentRequestError, AgentUnreachable, TaskFailed
from tests.integration.cli import graphs
from tests.integration.cli.conftest import serving
from tests.ports import free_port


def test_run_returns_outputs_in_order_with_their_bytes(client):
    result = client.run(graphs.two_saves())
    assert [output.node_id for output in result.outputs] == ["9", "2"]
    assert all(output.filename.startswith("flat_") for output in result.outputs)
    assert [image.getpixel((0, 0)) for image in result.images()] == [(255, 0, 0), (0, 255, 0)]


def test_run_returns_every_picture_of_a_batch(client):
    result = client.run(graphs.flat(count=3))
    names = [entry["filename"] for entry in result.nodes["2"]["images"]]
    assert [output.filename for output in result.outputs] == names
    assert len(set(names)) == 3


def test_progress_map_has_every_node_and_no_base64(client):
    result = client.run(graphs.flat())
    assert result.nodes.keys() == {"1", "2"}
    assert all(node["value"] == node["max"] and "results" not in node for node in result.nodes.values())


def test_envelope_passes_its_options_on(client):
    envelope = {"prompt": graphs.flat(0x123456), "extra_data": {"extra_pnginfo": {"note": "hello"}}}
    (image,) = client.run(envelope).images()
    assert json.loads(image.text["note"]) == "hello"


def test_largest_seed_arrives_as_it_was_sent(client):
    (image,) = client.run(graphs.sampled(seed=2**64 - 1, steps=1)).images()
    seeds = [node["inputs"].get("seed") for node in json.loads(image.text["prompt"]).values()]
    assert 2**64 - 1 in seeds


def test_random_seed_of_the_record_is_exact(client):
    task_id = client.submit(graphs.sampled(seed=-1, steps=1))
    record = client.wait(task_id)
    (seed,) = [value for inputs in record["seeds"].values() for value in inputs.values()]
    (image,) = client.run(graphs.sampled(seed=seed, steps=1)).images()
    again = [node["inputs"].get("seed") for node in json.loads(image.text["prompt"]).values()]
    assert seed in again


def test_submitted_task_is_followed_to_its_end_and_fetched(client):
    task_id = client.submit(graphs.sampled(steps=10, seed=graphs.fresh_seed()), "my-task." + uuid.uuid4().hex)
    assert task_id.startswith("my-task.")
    seen = []
    record = client.wait(task_id, seen.append)
    assert seen[-1] == record
    assert record["state"] == "succeeded"
    assert record == client.task(task_id)
    overall = [each["progress"] for each in seen]
    assert overall == sorted(overall)
    assert len(set(overall)) > 3
    assert client.fetch_output(task_id, 0)[:4] == b"\x89PNG"
    assert len(client.fetch_output(task_id, 0)) == record["outputs"][0]["bytes"]


def test_events_of_a_task_that_is_over_are_its_final_record(client):
    result = client.run(graphs.flat())
    (record,) = client.events(result.task_id)
    assert record["state"] == "succeeded"


def test_events_may_be_left_early(client):
    task_id = client.submit(graphs.sampled(steps=5))
    with closing(client.events(task_id)) as records:
        assert next(records)["id"] == task_id
    assert client.wait(task_id)["state"] == "succeeded"


def test_same_task_id_returns_the_stored_result(client):
    task_id = uuid.uuid4().hex
    first = client.run(graphs.flat(), task_id)
    again = client.run(graphs.flat(), task_id)
    assert first.task_id == again.task_id == task_id
    assert first.outputs == again.outputs


def test_task_id_of_another_workflow_is_a_conflict(client):
    task_id = client.run(graphs.flat()).task_id
    with pytest.raises(AgentRequestError) as caught:
        client.run(graphs.flat(color=1), task_id)
    assert (caught.value.status, caught.value.code) == (409, "TaskConflict")


def test_refusal_carries_status_code_sentence_and_body(client):
    with pytest.raises(AgentRequestError) as caught:
        client.run({"1": {"class_type": "NoSuchNode", "inputs": {}}}, "refused")
    error = caught.value
    assert (error.status, error.code, error.task_id) == (400, "UnknownNodeClass", "refused")
    assert "NoSuchNode" in error.detail
    assert error.body["error"]["node_id"] == "1"
    assert str(error).startswith("400 UnknownNodeClass: ")


def test_node_that_fails_is_an_error_of_run(client):
    with pytest.raises(AgentRequestError) as caught:
        client.run(graphs.failing())
    assert (caught.value.status, caught.value.code) == (500, "NodeFailed")
    assert caught.value.body["error"]["node_title"] == "Too much"


def test_node_that_fails_makes_wait_raise_with_the_record(client):
    task_id = client.submit(graphs.failing())
    with pytest.raises(TaskFailed) as caught:
        client.wait(task_id)
    failure = caught.value
    assert (failure.task_id, failure.state, failure.code) == (task_id, "failed", "NodeFailed")
    assert failure.record["error"]["node_id"] == "3"


def test_cancelled_task_makes_wait_raise(client):
    task_id = client.submit(graphs.sampled(steps=1000))
    assert client.cancel(task_id)["state"] == "cancelled"
    with pytest.raises(TaskFailed) as caught:
        client.wait(task_id)
    assert caught.value.state == "cancelled"


def test_wait_gives_up_in_time_and_leaves_the_task_alone(client):
    task_id = client.submit(graphs.sampled(steps=1000))
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        client.wait(task_id, timeout=0.4)
    assert time.monotonic() - began > 0.3
    assert client.task(task_id)["state"] in ("queued", "running")
    client.cancel(task_id)


@pytest.mark.parametrize("ask", ["task", "cancel", "wait"])
def test_unknown_task_is_a_404(client, ask):
    with pytest.raises(AgentRequestError) as caught:
        getattr(client, ask)("nobody-has-this-id")
    assert (caught.value.status, caught.value.code) == (404, "TaskNotFound")


def test_output_that_does_not_exist_is_a_404(client):
    task_id = client.run(graphs.flat()).task_id
    with pytest.raises(AgentRequestError) as caught:
        client.fetch_output(task_id, 7)
    assert caught.value.code == "OutputNotFound"


def test_number_that_json_lacks_is_refused_before_it_is_sent(client):
    with pytest.raises(ValueError, match="JSON compliant"):
        client.run(graphs.sampled(cfg=float("nan")))


def test_ready_agent_says_so(client):
    assert client.ready()


def test_https_where_none_is_spoken_is_said(make_client, agent_url):
    url = agent_url.replace("http:", "https:")
    with make_client(url) as client, pytest.raises(AgentUnreachable) as caught:
        client.task("t")
    assert caught.value.detail == f"{url} cannot be reached: TLS failed there, wrong version number."


def test_nobody_there_is_unreachable_and_not_ready(make_client):
    with make_client(f"http://127.0.0.1:{free_port()}") as client:
        assert not client.ready()
        with pytest.raises(AgentUnreachable, match="refused"):
            client.run(graphs.flat())
        with pytest.raises(AgentUnreachable):
            client.wait("some-task")


def test_proxy_of_the_environment_is_not_asked_for_loopback(make_client, agent_url, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    with make_client(agent_url) as client:
        assert client.ready()


def test_api_key_opens_an_agent_that_wants_one(make_client, command):
    # No engine: who is refused never gets as far as one, and who is let in finds the list of tasks empty.
    command.settings = {"AGENT_API_KEYS": "other,s3cret", "COMFYUI_URL": f"http://127.0.0.1:{free_port()}"}
    with serving(command, wait=False) as url:
        with make_client(url, "s3cret") as client, pytest.raises(AgentRequestError) as caught:
            client.task("nobody")
        assert caught.value.code == "TaskNotFound"
        for key in (None, "wrong"):
            with make_client(url, key) as client:
                assert not client.ready()  # open to all, and says that there is no engine
                with pytest.raises(AgentRequestError) as caught:
                    client.task("nobody")
                assert (caught.value.status, caught.value.code) == (401, "Unauthorized")


def test_named_workflows_are_listed_and_shown(client):
    names = [each["name"] for each in client.workflows()]
    assert {"invert", "postcard", "text-to-image"} <= set(names)
    shown = client.workflow("invert")
    assert shown["schema"]["properties"].keys() == {"image"}
    assert shown["workflow"]["1"]["class_type"] == "LoadImage"


def test_named_workflow_runs_with_values_and_files(client, tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (4, 4), (255, 0, 0)).save(path)
    for source in (path, str(path), path.read_bytes()):
        (image,) = client.run_workflow("invert", files={"image": source}).images()
        assert image.getpixel((0, 0)) == (0, 255, 255)


def test_large_file_arrives_whole(client, tmp_path):
    Image.new("RGB", (900, 700), (1, 2, 3)).save(path := tmp_path / "large.bmp")
    assert path.stat().st_size > 1_500_000
    (image,) = client.run_workflow("invert", files={"image": path}).images()
    assert (image.size, image.getpixel((899, 699))) == ((900, 700), (254, 253, 252))


def test_named_workflow_is_submitted_and_its_name_kept(client):
    task_id = client.submit_workflow(
        "text-to-image", {"prompt": "a fox", "seed": 2**64 - 1, "steps": 1}, task_id=f"fox-{uuid.uuid4()}"
    )
    assert task_id.startswith("fox-")
    assert client.wait(task_id)["workflow_name"] == "text-to-image"
    (output,) = client.fetch_outputs(task_id)
    assert (output.node_id, output.is_picture) == ("9", True)
    assert "18446744073709551615" in output.image().text["prompt"]


@pytest.mark.parametrize("parameters", [{"steps": "many"}, {"nobody": 1}])
def test_wrong_value_of_a_named_workflow_names_its_parameter(client, parameters):
    with pytest.raises(AgentRequestError) as caught:
        client.run_workflow("text-to-image", parameters)
    assert (caught.value.status, caught.value.code) == (422, "InvalidParameter")
    assert caught.value.body["error"]["parameter"] in parameters


def test_option_beside_the_parameters_is_sent(client):
    with pytest.raises(AgentRequestError) as caught:
        client.run_workflow("text-to-image", options={"outputs": "telegram"})
    assert caught.value.code == "InvalidOptions"


def test_workflow_of_no_such_name_is_a_404(client):
    with pytest.raises(AgentRequestError) as caught:
        client.run_workflow("nobody-has-this-name")
    assert (caught.value.status, caught.value.code) == (404, "WorkflowNotFound")
    with pytest.raises(ValueError, match="no name of a workflow"):
        client.workflow("../invert")


def test_file_that_is_not_there_is_an_oserror(client, tmp_path):
    with pytest.raises(FileNotFoundError):
        client.run_workflow("invert", files={"image": tmp_path / "none.png"})


def test_outputs_of_a_task_that_made_none(client):
    task_id = client.submit(graphs.failing())
    with pytest.raises(TaskFailed):
        client.wait(task_id)
    assert client.fetch_outputs(task_id) == []
