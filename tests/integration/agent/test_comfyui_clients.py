"""ComfyUI's own clients on the agent's port: what its script examples, comfy-cli and its editor do."""

from __future__ import annotations

import asyncio
import io
import json
import struct
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
import pytest_asyncio
from aiohttp import WSMsgType
from PIL import Image

from agent.api.keys import BOARD, DESK
from agent.editor import desk
from agent.tasks.record import Output, TaskRecord
from tests.integration.agent import graphs
from tests.integration.agent.editor import Client, connected, kinds
from tests.integration.agent.pictures import color_of, look, png
from tests.integration.agent.service import Agent, MakeAgent, eventually

HELLO = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}


@pytest_asyncio.fixture(loop_scope="session")
async def open_agent(make_agent: MakeAgent) -> Agent:
    return await make_agent(pass_through=["all"])


@pytest.mark.real
async def test_script_gets_its_events_history_and_picture(open_agent: Agent) -> None:
    async with connected(open_agent) as client:
        color, prompt_id = graphs.fresh_color(), str(uuid.uuid4())
        accepted = (await client.queue_prompt(graphs.painted(color), prompt_id=prompt_id)).ok()
        assert accepted == {"prompt_id": prompt_id, "number": accepted["number"], "node_errors": {}}
        heard = await client.hear_out(prompt_id)
        told = kinds(heard)
        assert told.index("execution_start") < told.index("executed") < told.index("execution_success")
        assert all(
            message["data"]["prompt_id"] == prompt_id for message in heard if message["type"] != "status"
        )
        entry = (await client.get_history(prompt_id))[prompt_id]
        assert entry["status"]["status_str"] == "success"
        assert entry["status"]["completed"]
        number, item_id, graph, extra, outputs = entry["prompt"]
        assert (number, item_id, graph) == (accepted["number"], prompt_id, graphs.painted(color))
        assert extra["client_id"] == client.client_id
        assert outputs == ["2"]
        (file,) = entry["outputs"]["2"]["images"]
        assert color_of(await client.get_image(file)) == graphs.rgb(color)
        for base in ("/comfyui", "/comfyui/api"):
            assert (await open_agent.get(f"{base}/view", params=file)).body == await client.get_image(file)
    record = await open_agent.task(prompt_id)
    assert record["state"] == "succeeded", "it is a task like every other"


#: A picture that can be seen through, saved by node 4.
CLEAR = {
    "1": graphs.empty(),
    "2": graphs.node("SolidMask", value=0.5, width=8, height=8),
    "3": graphs.node("JoinImageWithAlpha", image=["1", 0], alpha=["2", 0]),
    "4": graphs.save(images=["3", 0]),
}


@pytest.mark.real
async def test_views_of_a_prompts_file_are_those_that_the_engine_would_make(open_agent: Agent) -> None:
    async with connected(open_agent) as client:
        prompt_id = (await client.queue_prompt(CLEAR)).ok()["prompt_id"]
        await client.hear_out(prompt_id)
        (file,) = (await client.get_history(prompt_id))[prompt_id]["outputs"]["4"]["images"]
        for asked in (
            {"preview": "webp;90"},
            {"preview": "jpeg;30"},
            {"preview": "webp", "channel": "rgb"},
            {"channel": "rgb"},
            {"channel": "a"},
            {"channel": "rgba"},
        ):
            ours = await open_agent.get("/comfyui/api/view", params={**file, **asked})
            async with open_agent.engine.http.get("/view", params={**file, **asked}) as its:
                theirs = look(await its.read())
                assert ours.headers["Content-Type"] == its.headers["Content-Type"], asked
            shown = look(ours.body)
            assert (shown.format, shown.mode) == (theirs.format, theirs.mode), asked
            assert shown.getpixel((4, 4)) == pytest.approx(theirs.getpixel((4, 4)), abs=3), asked


async def test_file_that_is_no_picture_is_shown_whole_and_a_broken_one_refused(
    open_agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = open_agent.parts[BOARD]
    async with connected(open_agent) as client:
        prompt_id = (await client.queue_prompt(graphs.painted())).ok()["prompt_id"]
        await client.hear_out(prompt_id)
        (file,) = (await client.get_history(prompt_id))[prompt_id]["outputs"]["2"]["images"]
        output, _ = await board.output(prompt_id, 0)
        found: tuple[Output, bytes | str] = (output, b"no picture")
        monkeypatch.setattr(board, "output", lambda *_: answer(found))
        for asked in ({"preview": "webp"}, {"channel": "a"}):
            (await open_agent.get("/view", params={**file, **asked})).error(400, "InvalidQuery")
        found = (output.model_copy(update={"media_type": "video/mp4"}), b"a video")
        assert (await open_agent.get("/view", params={**file, "preview": "webp"})).body == b"a video"
        found = (output, "https://bucket.example/signed")
        away = await open_agent.get("/view", params={**file, "preview": "webp"})
        assert (away.status, away.headers["Location"]) == (302, "https://bucket.example/signed")


async def test_file_with_too_many_pixels_has_no_previews_but_is_shown_as_it_is(make_agent: MakeAgent) -> None:
    agent = await make_agent(pass_through=["all"], max_output_pixels=100)
    async with connected(agent) as client:
        prompt_id = (await client.queue_prompt(graphs.painted(size=(16, 16)))).ok()["prompt_id"]
        await client.hear_out(prompt_id)
        (file,) = (await client.get_history(prompt_id))[prompt_id]["outputs"]["2"]["images"]
    for asked in ({"preview": "webp"}, {"channel": "a"}):
        error = (await agent.get("/view", params={**file, **asked})).error(413, "PictureTooLarge")
        assert "AGENT_MAX_OUTPUT_PIXELS" in error["detail"]
    assert look((await agent.get("/view", params=file)).body).size == (16, 16)


async def test_prompt_that_is_forgotten_as_it_ends_leaves_nothing_behind(
    open_agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, desk = open_agent.parts[BOARD], open_agent.parts[DESK]
    follow = board.follow

    async def follow_and_forget(task_id: str) -> AsyncGenerator[TaskRecord, None]:
        async with aclosing(follow(task_id)) as records:
            async for record in records:
                yield record
                if record.state.is_final:
                    desk.forget({task_id})

    monkeypatch.setattr(board, "follow", follow_and_forget)
    async with connected(open_agent) as client:
        prompt_id = (await client.queue_prompt(graphs.painted())).ok()["prompt_id"]
        await client.hear_out(prompt_id)
        assert await client.get_history(prompt_id) == {}
    assert desk._files == {}


async def answer(value: tuple[Output, bytes | str]) -> tuple[Output, bytes | str]:
    return value


async def test_same_prompt_again_is_the_same_task_and_another_graph_is_refused(open_agent: Agent) -> None:
    async with connected(open_agent) as client:
        graph = graphs.painted(graphs.fresh_color())
        first = (await client.queue_prompt(graph, prompt_id="mine")).ok()
        async with open_agent.engine.asked(0):
            assert (await client.queue_prompt(graph, prompt_id="mine")).ok() == first
        refused = await client.queue_prompt(graphs.painted(), prompt_id="mine")
        assert (refused.status, refused.json["error"]["type"]) == (409, "TaskConflict")


async def test_fields_of_a_request_that_nobody_knows_are_ignored_as_comfyui_does(open_agent: Agent) -> None:
    async with connected(open_agent) as client:
        graph = graphs.painted()
        accepted = (await client.queue_prompt(graph, workflow_id="x", a_later_version={"may": "send"})).ok()
        assert "execution_success" in kinds(await client.hear_out(accepted["prompt_id"]))
        wrong = await client.queue_prompt(graph, partial_execution_targets="2")
        assert (wrong.status, wrong.json["error"]["type"]) == (400, "InvalidOptions")
    (await open_agent.run({"prompt": graph, "workflow_id": "x"})).error(400, "InvalidOptions")


async def test_previews_come_in_the_form_that_the_client_understands(open_agent: Agent) -> None:
    for says_hello in (False, True):
        async with connected(open_agent) as client:
            if says_hello:
                await client.socket.send_json(HELLO)
                assert (await client.hear())["type"] == "feature_flags"
            prompt_id = (await client.queue_prompt(graphs.sampled(seed=40 + says_hello))).ok()["prompt_id"]
            heard = await client.hear_out(prompt_id)
            previews = [message for message in heard if isinstance(message, bytes)]
            assert previews
            kind, size = struct.unpack_from(">II", previews[0])
            data = previews[0][8:]
            if says_hello:
                about, data = json.loads(data[:size]), data[size:]
                assert about["prompt_id"] == prompt_id
            assert kind == (4 if says_hello else 1)
            Image.open(io.BytesIO(data)).load()
            assert "progress_state" in kinds(heard)


async def test_graph_that_comfyui_refuses_is_refused_in_its_form(open_agent: Agent) -> None:
    async with connected(open_agent) as client:
        broken = graphs.chain(graphs.node("SaveImage", filename_prefix="x"))
        answer = await client.queue_prompt(broken)
        assert answer.status == 400
        assert answer.json["error"]["type"] == "prompt_outputs_failed_validation"
        assert answer.json["node_errors"]["1"]["errors"][0]["type"] == "required_input_missing"
        unknown = await client.queue_prompt(graphs.painted() | {"3": graphs.node("NoSuchNode")})
        assert unknown.status == 400
        assert unknown.json["node_errors"]["3"]["errors"][0]["type"] == "UnknownNodeClass"
        for body in (b"{", b"[]", b'{"prompt": 1}'):
            assert (await open_agent.call("POST", "/prompt", data=body)).status == 400
        assert (await open_agent.get("/history")).ok() == {}, "what is refused is not remembered"


async def test_refused_graph_that_is_sent_several_times_at_once_is_refused_each_time(
    open_agent: Agent,
) -> None:
    async with connected(open_agent) as client:
        broken = graphs.chain(graphs.node("SaveImage", filename_prefix="twice"))
        sent = (client.queue_prompt(broken, prompt_id="refused-at-once") for _ in range(4))
        assert [answer.status for answer in await asyncio.gather(*sent)] == [400] * 4
        assert (await open_agent.get("/history/refused-at-once")).ok() == {}


async def test_what_a_socket_says_that_means_nothing_is_ignored(open_agent: Agent) -> None:
    async with connected(open_agent) as client:
        for said in (
            "{}",
            "[]",
            "null",
            "x",
            '{"type": "feature_flags"}',
            '{"type": "feature_flags", "data": 1}',
        ):
            await client.socket.send_str(said)
        await client.socket.send_bytes(b"\x00" * 9)
        await client.socket.send_json(HELLO)
        assert (await client.hear())["type"] == "feature_flags", "the socket is still open"


async def test_node_that_fails_is_told_as_comfyui_tells_it(open_agent: Agent) -> None:
    async with connected(open_agent) as client:
        prompt_id = (await client.queue_prompt(graphs.raising())).ok()["prompt_id"]
        heard = await client.hear_out(prompt_id)
        (error,) = [message["data"] for message in heard if message["type"] == "execution_error"]
        assert error["node_id"]
        assert error["exception_type"]
        entry = (await client.get_history(prompt_id))[prompt_id]
        assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("error", False)
        assert entry["status"]["messages"][-1][0] == "execution_error"


async def test_interrupt_and_queue_touch_the_prompts_of_comfyuis_clients_alone(make_agent: MakeAgent) -> None:
    agent = await make_agent(pass_through=["all"], concurrency=1)
    neighbour = await agent.begin(graphs.stepping(steps=1000), "neighbour")
    await agent.running(neighbour)
    async with connected(agent) as client:
        waiting = (await client.queue_prompt(graphs.stepping(steps=999))).ok()["prompt_id"]
        also = (await client.queue_prompt(graphs.stepping(steps=998))).ok()["prompt_id"]
        shown = (await agent.get("/queue")).ok()
        assert [item[1] for item in shown["queue_pending"]] == [waiting, also]
        assert shown["queue_running"] == []
        assert set((await agent.get("/api/queue")).ok()["queued"]) == {waiting, also}
        assert (await agent.get("/prompt")).ok() == {"exec_info": {"queue_remaining": 2}}
        assert (await agent.call("POST", "/interrupt")).status == 200
        assert (
            await agent.call("POST", "/queue", data=json.dumps({"delete": [also]}).encode())
        ).status == 200
        assert "execution_interrupted" in kinds(await client.hear_out(also))
        assert (await agent.task("neighbour"))["state"] == "running", "he is nobody's whom they may touch"
        await agent.cancel("neighbour")
        await agent.running(waiting)
        assert (await agent.call("POST", "/interrupt", data=b'{"prompt_id": "another"}')).status == 200
        assert (await agent.task(waiting))["state"] == "running"
        assert (await agent.call("POST", "/interrupt")).status == 200
        assert "execution_interrupted" in kinds(await client.hear_out(waiting))
    assert (await agent.task(waiting))["state"] == "cancelled"
    history = (await agent.get("/history", params={"max_items": "1"})).ok()
    assert list(history) == [waiting]
    assert (await agent.call("POST", "/history", data=b'{"clear": true}')).status == 200
    assert (await agent.get("/history")).ok() == {}
    assert (await agent.task(waiting))["state"] == "cancelled", "the task stays"


async def test_two_clients_hear_of_their_own_prompts_alone(open_agent: Agent) -> None:
    async with connected(open_agent) as one, connected(open_agent) as other:
        prompt_id = (await one.queue_prompt(graphs.painted(graphs.fresh_color()))).ok()["prompt_id"]
        await one.hear_out(prompt_id)
        theirs = (await other.queue_prompt(graphs.painted(graphs.fresh_color()))).ok()["prompt_id"]
        heard = await other.hear_out(theirs)
        assert {m["data"]["prompt_id"] for m in heard if m["type"] != "status"} == {theirs}
        assert "status" in kinds(heard), "how long the queue is, everybody hears"


async def test_limits_and_policy_hold(make_agent: MakeAgent) -> None:
    agent = await make_agent(pass_through=["all"], nodes_deny=["EmptyImage"], max_body_bytes=2000)
    async with connected(agent) as client:
        assert (await client.queue_prompt(graphs.painted())).json["error"]["type"] == "NodeNotAllowed"
        assert (await client.queue_prompt({"1": graphs.node("X", text="x" * 3000)})).status == 413


async def test_key_is_needed_and_a_browser_keeps_it_in_a_cookie(make_agent: MakeAgent) -> None:
    agent = await make_agent(pass_through=["all"], api_keys=["k3y"])
    for path in ("/queue", "/ws", "/comfyui/", "/comfyui/api/object_info", "/comfyui/ws"):
        (await agent.get(path)).error(401, "Unauthorized")
    refused = (await agent.get("/comfyui/?key=wrong")).error(401, "Unauthorized")
    assert "Open /comfyui/?key=KEY once" in refused["detail"]
    (await agent.get("/comfyui/api/object_info?key=k3y")).error(401, "Unauthorized")
    async with agent.http.get("/comfyui/?key=k3y", allow_redirects=False) as entered:
        assert (entered.status, entered.headers["Location"]) == (303, "/comfyui/")
        cookie = entered.cookies["comfyui_agent_key"]
        assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/comfyui")
    with_cookie = {"Cookie": "comfyui_agent_key=k3y"}
    assert "SaveImage" in (await agent.call("GET", "/comfyui/api/object_info", headers=with_cookie)).ok()
    (await agent.call("GET", "/api/tasks", headers=with_cookie)).error(401, "Unauthorized")
    async with connected(agent, "/comfyui", **with_cookie) as client:
        answer = await agent.call(
            "POST",
            "/comfyui/api/prompt",
            data=json.dumps({"prompt": graphs.painted(), "client_id": client.client_id}).encode(),
            headers=with_cookie,
        )
        await client.hear_out(answer.ok()["prompt_id"])


async def test_icons_that_the_editor_asks_for_at_the_root_are_found_below_it(make_agent: MakeAgent) -> None:
    """Its page has their addresses without the place where it is served. A browser sends the cookie there alone."""
    agent = await make_agent(pass_through=["all"], api_keys=["k3y"])
    for icon in ("favicon.ico", "images/favicon_progress_16x16/frame_9.png", "images/logo-1.svg"):
        sent = await agent.get(f"/assets/{icon}")
        assert (sent.status, sent.headers["Location"], sent.body) == (307, f"/comfyui/assets/{icon}", b"")
        (await agent.get(sent.headers["Location"])).error(401, "Unauthorized")
        cookie = {"Cookie": "comfyui_agent_key=k3y"}
        found = await agent.call("GET", sent.headers["Location"], headers=cookie)
        assert found.status == 404, "the simulator, which was asked, has no editor"
    for other in ("index.js", "images/index.html", ".x.png", "a//b.png", "", "/evil.example/x.png"):
        (await agent.get(f"/assets/{other}")).error(404, "NotFound")
    closed = await make_agent(api_keys=["k3y"])
    (await closed.get("/assets/favicon.ico")).error(404, "NotFound")


async def test_files_of_the_engine_are_shown_under_every_address(open_agent: Agent) -> None:
    await open_agent.engine.upload("shown-to-editors.png", png((1, 2, 3)))
    for base in ("", "/comfyui", "/comfyui/api"):
        shown = await open_agent.get(
            f"{base}/view", params={"filename": "shown-to-editors.png", "type": "input"}
        )
        assert color_of(shown.body) == (1, 2, 3)


async def test_only_what_the_editor_needs_is_passed_on(open_agent: Agent) -> None:
    for path in (
        "/comfyui/free",
        "/comfyui/api/free",
        "/comfyui/manager/reboot",
        "/comfyui/api/internal/logs",
        "/comfyui/../free",
        "/comfyui/x/%2e%2e/%2e%2e/queue.json",
        "/free",
    ):
        for method in ("GET", "POST"):
            assert (await open_agent.call(method, path)).status in (404, 405), (method, path)
    for base in ("/comfyui", "/comfyui/api"):  # where the engine itself might have an answer
        (await open_agent.get(f"{base}/internal/files/output.json")).error(404, "NotFound")


async def test_without_the_setting_none_of_it_is_there(make_agent: MakeAgent) -> None:
    agent = await make_agent()
    for method, path in (("POST", "/prompt"), ("GET", "/ws"), ("GET", "/history"), ("GET", "/comfyui/")):
        assert (await agent.call(method, path)).status == 404


async def test_behind_a_gateway_a_prompt_needs_the_socket_that_keeps_the_instance_awake(
    make_agent: MakeAgent,
) -> None:
    agent = await make_agent(pass_through=["all"], invocation="gateway")
    body = json.dumps({"prompt": graphs.painted()}).encode()
    refused = await agent.call("POST", "/prompt", data=body)
    assert (refused.status, refused.json["error"]["type"]) == (409, "SocketNeeded")
    async with connected(agent) as client:
        await client.hear_out((await client.queue_prompt(graphs.painted())).ok()["prompt_id"])


async def test_later_socket_with_the_same_client_id_takes_the_place_of_the_first(open_agent: Agent) -> None:
    async with (
        connected(open_agent) as client,
        open_agent.http.ws_connect(f"/ws?clientId={client.client_id}") as second,
    ):
        assert (await client.socket.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
        prompt_id = (await client.queue_prompt(graphs.painted(graphs.fresh_color()))).ok()["prompt_id"]
        later = Client(open_agent, second, client.client_id)
        await later.hear_out(prompt_id)


async def test_history_holds_large_prompts_only_as_long_as_there_is_room(
    open_agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "MAX_ENDED_BYTES", 100_000)
    async with connected(open_agent) as client:
        ids = []
        for _ in range(3):
            beside = {"note": "x" * 40_000}
            accepted = await client.queue_prompt(graphs.painted(graphs.fresh_color()), extra_data=beside)
            ids.append(accepted.ok()["prompt_id"])
            await client.hear_out(ids[-1])
        assert list((await open_agent.get("/history")).ok()) == ids[1:]


async def test_tasks_that_came_this_way_are_counted(open_agent: Agent) -> None:
    async def succeeded() -> float:
        text = (await open_agent.get("/metrics")).body.decode()
        lines = [line for line in text.splitlines() if line.startswith("comfyui_agent_tasks_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines if 'state="succeeded"' in line)

    before = await succeeded()
    async with connected(open_agent) as client:
        await client.hear_out(
            (await client.queue_prompt(graphs.painted(graphs.fresh_color()))).ok()["prompt_id"]
        )

    async def is_counted() -> bool:
        return await succeeded() == before + 1

    await eventually(is_counted)
