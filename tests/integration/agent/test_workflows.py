"""Named workflows over HTTP, on the simulator."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema_rs
import pytest

from tests.integration.agent.pictures import b64, color_of, encode, look, picture, png
from tests.integration.agent.service import Agent, Answer, MakeAgent
from tests.integration.inputs.conftest import MediaServer
from tests.integration.inputs.conftest import answer as http_answer
from tests.unit.library.shelf import GRAPH, write

RED, CYAN = (255, 0, 0), (0, 255, 255)
LARGEST_SEED = 2**64 - 1


async def run(
    agent: Agent, name: str, task_id: str | None = None, *, headers: dict[str, str] | None = None, **body: Any
) -> Answer:
    named = {"task-id": task_id} if task_id else {}
    data = json.dumps(body).encode()
    return await agent.call(
        "POST", f"/api/workflows/{name}/run", data=data, headers={**named, **(headers or {})}
    )


async def send_form(agent: Agent, name: str, fields: list[tuple[str, str | bytes]], **headers: str) -> Answer:
    """Bytes are sent as files."""
    form = aiohttp.FormData(default_to_multipart=True)
    for field, value in fields:
        if isinstance(value, bytes):
            form.add_field(field, value, filename=f"{field}.png", content_type="image/png")
        else:
            form.add_field(field, value)
    return await agent.call("POST", f"/api/workflows/{name}/run", data=form, headers=headers)


async def test_list_says_what_there_is_and_what_the_engine_lacks(agent: Agent) -> None:
    found = {w["name"]: w for w in (await agent.get("/api/workflows")).ok()["workflows"]}
    assert found["invert"] == {
        "name": "invert",
        "title": {"en": "Negative", "zh": "反色", "ja": "ネガポジ反転"},
        "description": found["invert"]["description"],
        "tags": ["image-to-image", "no-model"],
        "available": True,
        "missing": [],
    }
    assert found["text-to-image"]["available"] is True


async def test_one_workflow_shows_schema_and_graph(agent: Agent) -> None:
    shown = (await agent.get("/api/workflows/text-to-image")).ok()
    assert shown["workflow"]["3"]["class_type"] == "KSampler"
    assert shown["outputs"] == ["9"]
    assert list(shown["schema"]["properties"])[:2] == ["prompt", "negative_prompt"]
    assert shown["schema"]["properties"]["checkpoint"]["x-files"][-1] == "v1-5-pruned-emaonly.safetensors"
    jsonschema_rs.meta.validate(shown["schema"])


@pytest.mark.parametrize("route", ["", "/run", "/thumbnail"])
async def test_unknown_workflow_is_404(agent: Agent, route: str) -> None:
    method = "POST" if route == "/run" else "GET"
    for name in ("nobody", "..%2Finvert", "invert.json"):
        answer = await agent.call(
            method, f"/api/workflows/{name}{route}", data=b"{}" if route == "/run" else None
        )
        answer.error(404, "WorkflowNotFound")


async def test_run_answers_with_the_progress_map_and_the_record_keeps_the_name(agent: Agent) -> None:
    answer = await run(agent, "invert", "named-1", parameters={"image": b64(png(RED))})
    assert [color_of(data) for data in answer.results("3")] == [CYAN]
    assert answer.headers["task-id"] == "named-1"
    assert (await agent.task("named-1"))["workflow_name"] == "invert"
    listed = (await agent.get("/api/tasks")).ok()["tasks"]
    assert next(task for task in listed if task["id"] == "named-1")["workflow_name"] == "invert"


async def test_picture_comes_as_url_data_uri_and_file_of_the_engine(agent: Agent, media: MediaServer) -> None:
    media.answers["/red.png"] = http_answer("200 OK", png(RED))
    await agent.engine.upload("red.png", png(RED))
    for value in (media.url("/red.png"), f"data:image/png;base64,{b64(png(RED))}", "red.png"):
        answer = await run(agent, "invert", parameters={"image": value})
        assert color_of(*answer.results("3")) == CYAN


async def test_numbers_arrive_exactly(agent: Agent) -> None:
    parameters = {
        "prompt": "x",
        "seed": LARGEST_SEED,
        "steps": 2,
        "cfg": 7.25,
        "checkpoint": "tiny.safetensors",
    }
    answer = await run(agent, "text-to-image", "exact", parameters=parameters)
    graph = look(*answer.results("9")).info["prompt"]
    assert f'"seed": {LARGEST_SEED}' in graph
    assert '"cfg": 7.25' in graph


async def test_seed_of_minus_one_is_random_and_reported(agent: Agent) -> None:
    parameters = {"steps": 1, "checkpoint": "tiny.safetensors"}
    await run(agent, "text-to-image", "dice-1", parameters=parameters)
    await run(agent, "text-to-image", "dice-2", parameters={**parameters, "seed": -1})
    seeds = [(await agent.task(task_id))["seeds"]["3"]["seed"] for task_id in ("dice-1", "dice-2")]
    assert seeds[0] != seeds[1]


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"steps": "x"}, "steps"),
        ({"steps": 0}, "steps"),
        ({"seed": LARGEST_SEED + 1}, "seed"),
        ({"sampler": "nobody"}, "sampler"),
        ({"prompt": None}, "prompt"),
        ({"promt": "x"}, "promt"),
    ],
)
async def test_wrong_value_is_422_and_never_reaches_the_engine(
    agent: Agent, parameters: dict[str, Any], name: str
) -> None:
    async with agent.engine.asked(0):
        answer = await run(agent, "text-to-image", parameters=parameters)
    assert answer.error(422, "InvalidParameter")["parameter"] == name


async def test_missing_picture_is_422(agent: Agent) -> None:
    for body in ({}, {"parameters": {}}):
        assert (await run(agent, "invert", **body)).error(422, "InvalidParameter")["parameter"] == "image"


async def test_body_that_is_none_is_refused(agent: Agent) -> None:
    for data, code, status in (
        (b"", "InvalidJson", 400),
        (b"[]", "InvalidJson", 400),
        (b'{"parameters": []}', "InvalidOptions", 400),
        (b'{"parameters": {}, "nonsense": 1}', "InvalidOptions", 400),
        (b'{"parameters": {}, "parked": {}}', "InvalidOptions", 400),
        (b'{"parameters": {}, "workflow_name": "x"}', "InvalidOptions", 400),
    ):
        (await agent.call("POST", "/api/workflows/invert/run", data=data)).error(status, code)


async def test_value_beside_the_parameters_is_told_where_it_belongs(agent: Agent) -> None:
    error = (await run(agent, "text-to-image", prompt="a red fox")).error(400, "InvalidOptions")
    assert error["option"] == "prompt"
    assert '"prompt" is a parameter' in error["detail"]
    assert '{"parameters": {"prompt": ...}}' in error["detail"]
    error = (await run(agent, "text-to-image", nonsense=1)).error(400, "InvalidOptions")
    assert 'Option "nonsense": unknown option' in error["detail"]
    assert '{"parameters": {...}}' in error["detail"]


async def test_options_beside_the_parameters_reach_the_engine(agent: Agent) -> None:
    options = {"extra_data": {"extra_pnginfo": {"seen": LARGEST_SEED}}}
    answer = await run(agent, "invert", parameters={"image": b64(png((1, 2, 3)))}, **options)
    assert str(LARGEST_SEED).encode() in answer.results("3")[0]


async def test_a_plain_run_may_name_its_workflow_too(agent: Agent) -> None:
    graph = (await agent.get("/api/workflows/invert")).ok()["workflow"]
    graph["1"]["inputs"]["image"] = b64(png(RED))
    (await agent.run({"prompt": graph, "workflow_name": "invert"}, "named-by-hand")).ok()
    assert (await agent.task("named-by-hand"))["workflow_name"] == "invert"
    (await agent.run({"prompt": graph, "workflow_name": "<script>"})).error(400, "InvalidOptions")


class TestTasks:
    """The same life as that of any other task."""

    async def test_asynchronous_run_is_polled(self, agent: Agent) -> None:
        answer = await run(
            agent,
            "invert",
            "named-async",
            headers={"X-Fc-Invocation-Type": "Async", "Accept": "image/png"},
            parameters={"image": b64(png(RED))},
        )
        assert (answer.status, answer.json["task_id"]) == (202, "named-async")
        record = await agent.succeeded("named-async")
        assert record["workflow_name"] == "invert"
        assert color_of((await agent.output("named-async", 0)).body) == CYAN

    async def test_the_same_id_returns_the_stored_result_and_refuses_other_values(self, agent: Agent) -> None:
        parameters = {"image": b64(png((9, 9, 9)))}
        first = await run(agent, "invert", "named-twice", parameters=parameters)
        async with agent.engine.asked(0):
            second = await run(agent, "invert", "named-twice", parameters=parameters)
            as_picture = await run(
                agent, "invert", "named-twice", parameters=parameters, headers={"Accept": "image/png"}
            )
            other = await run(agent, "invert", "named-twice", parameters={"image": b64(png(RED))})
        assert second.results("3") == first.results("3") == [as_picture.body]
        other.error(409, "TaskConflict")

    async def test_behind_a_gateway_a_refusal_is_kept_for_whoever_polls(self, make_agent: MakeAgent) -> None:
        agent = await make_agent(invocation="gateway")
        asynchronous = {"X-Fc-Invocation-Type": "Async"}
        for name, task_id, code in (
            ("invert", "no-image", "InvalidParameter"),
            ("nobody", "no-one", "WorkflowNotFound"),
        ):
            answer = await run(agent, name, task_id, headers=asynchronous)
            answer.error(answer.status, code)
            assert answer.headers["x-fc-status"] == "200"
            assert (await agent.task(task_id))["error"]["code"] == code
        answer = await run(
            agent, "invert", "in-the-request", headers=asynchronous, parameters={"image": b64(png(RED))}
        )
        assert color_of(*answer.results("3")) == CYAN

    async def test_a_random_seed_is_drawn_once_for_an_id(self, agent: Agent) -> None:
        parameters = {"steps": 1, "checkpoint": "tiny.safetensors"}
        first = await run(agent, "text-to-image", "dice-twice", parameters=parameters)
        second = await run(agent, "text-to-image", "dice-twice", parameters=parameters)
        assert first.results("9") == second.results("9")


class TestPictures:
    """`Accept` asks for the bytes of the first picture."""

    @pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
    async def test_first_picture_comes_in_the_format_asked_for(self, agent: Agent, kind: str) -> None:
        answer = await run(
            agent,
            "invert",
            f"as-{kind}",
            parameters={"image": b64(png(RED, (16, 16)))},
            headers={"Accept": f"image/{kind}, application/json;q=0.5"},
        )
        assert answer.status == 200
        assert answer.headers["Content-Type"] == f"image/{kind}"
        assert answer.headers["task-id"] == f"as-{kind}"
        found = look(answer.body)
        assert (found.format, found.size) == (kind.upper(), (16, 16))
        pixel = found.convert("RGB").getpixel((8, 8))
        assert all(abs(a - b) < 12 for a, b in zip(pixel, CYAN, strict=True))

    async def test_png_is_the_file_itself(self, agent: Agent) -> None:
        answer = await run(
            agent, "invert", "as-it-is", parameters={"image": b64(png(RED))}, headers={"Accept": "image/*"}
        )
        assert answer.body == (await agent.output("as-it-is", 0)).body

    async def test_picture_over_the_limit_of_an_answer_is_not_cut_off(self, make_agent: MakeAgent) -> None:
        agent = await make_agent(max_answer_bytes=100)
        answer = await run(
            agent, "invert", parameters={"image": b64(png(RED))}, headers={"Accept": "image/png"}
        )
        assert answer.error(413, "AnswerTooLarge")["limit"] == 100

    async def test_picture_with_too_many_pixels_is_not_converted_but_can_be_had_as_it_is(
        self, make_agent: MakeAgent
    ) -> None:
        agent = await make_agent(max_output_pixels=100)
        parameters = {"image": b64(png(RED, (16, 16)))}
        jpeg = {"Accept": "image/jpeg"}
        error = (await run(agent, "invert", "large", parameters=parameters, headers=jpeg)).error(
            413, "PictureTooLarge"
        )
        assert (error["limit"], error["transient"]) == (100, False)
        answer = await run(agent, "invert", "large", parameters=parameters, headers={"Accept": "image/*"})
        assert look(answer.body).size == (16, 16)

    async def test_error_is_json_all_the_same(self, agent: Agent) -> None:
        answer = await run(
            agent, "invert", parameters={"image": "nobody.png"}, headers={"Accept": "image/png"}
        )
        answer.error(400, "InvalidInput")

    async def test_workflow_without_a_picture_is_406_and_its_result_is_kept(
        self, make_agent: MakeAgent, tmp_path: Path
    ) -> None:
        graph = {"1": {"class_type": "PreviewAny", "inputs": {"source": "words"}}}
        write(tmp_path, "words", graph, {"title": "Words"})
        agent = await make_agent(workflows_dir=str(tmp_path))
        answer = await run(agent, "words", "no-picture", headers={"Accept": "image/png"})
        answer.error(406, "NoPicture")
        assert answer.headers["task-id"] == "no-picture"
        assert (await agent.status("no-picture")).ok()["1"]["text"] == ["words"]

    async def test_picture_type_that_cannot_be_made_is_refused_before_the_run(self, agent: Agent) -> None:
        answer = await run(agent, "text-to-image", "as-gif", headers={"Accept": "image/gif"})
        answer.error(406, "PictureTypeUnknown")
        (await agent.status("as-gif")).error(404, "TaskNotFound")


class TestForms:
    """multipart/form-data."""

    async def test_files_and_texts_by_the_names_of_their_parameters(self, agent: Agent) -> None:
        photo = encode(picture(RED, (672, 432)))
        answer = await send_form(
            agent,
            "postcard",
            [("photo", photo), ("stamp", png((0, 0, 255))), ("paper", "65280")],
            Accept="image/png",
        )
        card = look(answer.body).convert("RGB")
        assert card.size == (720, 480)
        assert card.getpixel((2, 2)) == (0, 255, 0)
        assert card.getpixel((100, 100)) == RED
        assert card.getpixel((620, 100)) == (0, 0, 255)

    async def test_a_picture_may_be_named_in_a_text_field(self, agent: Agent) -> None:
        answer = await send_form(agent, "invert", [("image", f"data:image/png;base64,{b64(png(RED))}")])
        assert color_of(*answer.results("3")) == CYAN

    async def test_numbers_are_exact_and_empty_fields_are_left_out(self, agent: Agent) -> None:
        fields: list[tuple[str, str | bytes]] = [
            ("seed", str(LARGEST_SEED)),
            ("steps", ""),
            ("negative_prompt", ""),
            ("checkpoint", "tiny.safetensors"),
            ("option.extra_data", '{"extra_pnginfo": {"a": 1}}'),
        ]
        answer = await send_form(agent, "text-to-image", fields)
        info = look(*answer.results("9")).info
        graph = json.loads(info["prompt"])
        assert (graph["3"]["inputs"]["seed"], graph["3"]["inputs"]["steps"]) == (LARGEST_SEED, 20)
        assert graph["7"]["inputs"]["text"] == ""
        assert info["a"] == "1"

    @pytest.mark.parametrize(
        ("fields", "name"),
        [
            ([("steps", "many")], "steps"),
            ([("steps", b"\xff\xfe")], "steps"),
            ([("steps", "1"), ("steps", "2")], "steps"),
            ([("nobody", "x")], "nobody"),
            ([("nobody", b"x")], "nobody"),
        ],
    )
    async def test_wrong_field_is_422(
        self, agent: Agent, fields: list[tuple[str, str | bytes]], name: str
    ) -> None:
        answer = await send_form(agent, "text-to-image", fields)
        assert answer.error(422, "InvalidParameter")["parameter"] == name

    async def test_unknown_option_is_refused(self, agent: Agent) -> None:
        answer = await send_form(agent, "text-to-image", [("option.nonsense", "x")])
        answer.error(400, "InvalidOptions")

    @pytest.mark.parametrize(
        ("content_type", "body"),
        [
            ("multipart/form-data", b"x"),
            ("multipart/form-data; boundary=b", b""),
            ("multipart/form-data; boundary=b", b"nothing of the kind"),
            ("multipart/form-data; boundary=b", b"--b\r\n\r\nno name\r\n--b--\r\n"),
            (
                "multipart/form-data; boundary=b",
                b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\ncut of',
            ),
            (
                "multipart/form-data; boundary=b",
                b'--b\r\nContent-Disposition: form-data; name="image"\r\nContent-Transfer-Encoding: what\r\n\r\nx\r\n--b--\r\n',
            ),
            (
                "multipart/form-data; boundary=b",
                b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--\r\n--b--\r\n",
            ),
        ],
    )
    async def test_form_that_is_none_is_refused(self, agent: Agent, content_type: str, body: bytes) -> None:
        answer = await agent.call(
            "POST", "/api/workflows/invert/run", data=body, headers={"Content-Type": content_type}
        )
        answer.error(400, "InvalidRequest")

    async def test_form_over_the_limit_is_refused(self, make_agent: MakeAgent) -> None:
        agent = await make_agent(max_body_bytes=20_000)
        big = await send_form(agent, "invert", [("image", bytes(30_000))])
        big.error(413, "BodyTooLarge")

        async def trickle() -> Any:
            yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
            for _ in range(30):
                yield bytes(1000)
            yield b"\r\n--b--\r\n"

        chunked = await agent.call(
            "POST",
            "/api/workflows/invert/run",
            data=trickle(),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
        chunked.error(413, "BodyTooLarge")


class TestOwnFolder:
    """AGENT_WORKFLOWS_DIR."""

    async def test_its_workflows_are_there_and_win_over_shipped_ones(
        self, make_agent: MakeAgent, tmp_path: Path
    ) -> None:
        write(tmp_path, "mine", GRAPH, {"title": "Mine"})
        write(tmp_path, "invert", GRAPH, {"title": "Another"})
        (tmp_path / "mine.webp").write_bytes(encode(picture(RED), "WEBP"))
        (tmp_path / "broken.json").write_text("{")
        agent = await make_agent(workflows_dir=str(tmp_path))
        found = {w["name"]: w for w in (await agent.get("/api/workflows")).ok()["workflows"]}
        assert found["invert"]["title"] == "Another"
        assert found["mine"]["thumbnail"] == "/api/workflows/mine/thumbnail"
        assert "broken" not in found
        thumbnail = await agent.get("/api/workflows/mine/thumbnail")
        assert thumbnail.headers["Content-Type"] == "image/webp"
        assert look(thumbnail.body).size == (8, 8)
        (await agent.get("/api/workflows/broken")).error(500, "InvalidManifest")
        (await run(agent, "broken")).error(500, "InvalidManifest")

    async def test_what_the_engine_lacks_is_named(self, make_agent: MakeAgent, tmp_path: Path) -> None:
        graph = GRAPH | {"20": {"class_type": "NoSuchNode", "inputs": {}}}
        model = {"title": "Model", "type": "model", "sets": "4.ckpt_name", "default": "not-there.safetensors"}
        graph["4"] = {**GRAPH["4"], "inputs": {"ckpt_name": "not-there.safetensors"}}
        write(tmp_path, "lacking", graph, {"title": "Lacking", "parameters": {"model": model}})
        agent = await make_agent(workflows_dir=str(tmp_path))
        shown = (await agent.get("/api/workflows/lacking")).ok()
        assert shown["available"] is False
        assert shown["missing"] == ["NoSuchNode", "not-there.safetensors"]
        (await run(agent, "lacking")).error(400, "UnknownNodeClass")

    async def test_what_the_server_does_not_run_is_not_available(self, make_agent: MakeAgent) -> None:
        agent = await make_agent(nodes_deny=["ImageInv*"])
        shown = (await agent.get("/api/workflows/invert")).ok()
        assert (shown["available"], shown["missing"]) == (False, ["ImageInvert"])
        (await run(agent, "invert", parameters={"image": b64(png())})).error(403, "NodeNotAllowed")

    async def test_workflow_without_a_manifest_gets_one_from_its_panels(
        self, make_agent: MakeAgent, tmp_path: Path
    ) -> None:
        panel = {"type": "number", "key": "width", "title": "Width", "min": 1, "max": 64}
        graph = {
            "1": {
                "class_type": "EmptyImage",
                "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 255},
                "_meta": {"title": "Paint", "edit": [panel]},
            },
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
        }
        write(tmp_path, "panels", graph)
        agent = await make_agent(workflows_dir=str(tmp_path))
        answer = await run(agent, "panels", parameters={"width": 20}, headers={"Accept": "image/png"})
        assert look(answer.body).size == (20, 8)
        (await run(agent, "panels", parameters={"width": 65})).error(422, "InvalidParameter")


async def test_many_at_once_each_get_their_own_picture(agent: Agent) -> None:
    # Values between black and white may be off by one: ComfyUI rounds down.
    colors = [(255 * (n & 1), 255 * (n >> 1 & 1), 255 * (n >> 2)) for n in range(8)]
    answers = await asyncio.gather(
        *(
            run(agent, "invert", parameters={"image": b64(png(color))}, headers={"Accept": "image/png"})
            for color in colors
        )
    )
    assert [color_of(answer.body) for answer in answers] == [
        (255 - red, 255 - green, 255 - blue) for red, green, blue in colors
    ]


async def test_engine_that_is_not_up_leaves_open_what_is_available(make_agent: MakeAgent) -> None:
    agent = await make_agent(comfyui_command="sleep 60", wait=False)
    found = (await agent.get("/api/workflows")).ok()["workflows"]
    assert {w["available"] for w in found} == {None}
    assert (await agent.get("/api/workflows/invert")).ok()["available"] is None
