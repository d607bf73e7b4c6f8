"""The HTTP routes against the simulator: what is sent arrives as it was meant."""

from __future__ import annotations

import asyncio
import contextlib
import io
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from PIL import Image

from comfyui.client import Client, FileRef
from comfyui.errors import EngineUnreachableError, FileMissingError, PromptRejectedError
from tests.integration.feed.engine import empty, node, quick, silent, steps, unique
from tests.integration.feed.run import eventually, finished, started
from tests.ports import free_port

CLIENT_ID = "nobody-listens"


def png(color: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(buffer, "PNG")
    return buffer.getvalue()


async def submit(client: Client, graph: dict[str, Any], **more: Any) -> str:
    prompt_id = str(uuid.uuid4())
    submitted = await client.submit(graph, prompt_id=prompt_id, client_id=CLIENT_ID, **more)
    assert submitted.prompt_id == prompt_id
    return prompt_id


async def run(client: Client, graph: dict[str, Any], **more: Any) -> FileRef:
    """The first file of node 9."""
    prompt_id = await submit(client, graph, **more)
    await finished(client, prompt_id)
    entry = await client.history(prompt_id)
    assert entry
    assert entry.succeeded
    return FileRef(**entry.outputs["9"]["images"][0])


async def test_system_stats_tell_the_version(client: Client) -> None:
    assert client.version == ""
    stats = await client.system_stats()
    assert client.version == stats["system"]["comfyui_version"] == "0.3.64"


async def test_object_info_describes_the_classes(client: Client) -> None:
    assert (await client.object_info())["SaveImage"]["output_node"] is True


async def test_a_prompt_is_queued_runs_and_leaves_its_files(client: Client) -> None:
    file = await run(client, quick())
    assert await client.has_file(file)
    picture = Image.open(io.BytesIO(await client.fetch_file(file)))
    assert picture.size == (8, 8)


async def test_a_refused_prompt_brings_comfyuis_own_objects(client: Client) -> None:
    graph = {"1": empty(width=0), "9": node("SaveImage", images=["1", 0], filename_prefix="x")}
    with pytest.raises(PromptRejectedError) as refused:
        await submit(client, graph)
    assert refused.value.type == "prompt_outputs_failed_validation"
    assert refused.value.node_errors["1"]["errors"][0]["type"] == "value_smaller_than_min"


async def test_a_partly_valid_prompt_is_accepted_with_its_errors(client: Client) -> None:
    graph = quick() | {"2": empty(width=0), "3": node("PreviewImage", images=["2", 0])}
    submitted = await client.submit(graph, prompt_id=str(uuid.uuid4()), client_id=CLIENT_ID)
    assert set(submitted.node_errors) == {"2"}


async def test_whole_numbers_of_any_size_come_back_exactly(client: Client) -> None:
    seeds = [2**53 + 1, 2**63, 2**64 - 1]
    for seed in seeds:
        graph = quick() | {"8": node("ImageAddNoise", image=["1", 0], seed=seed, strength=0.1)}
        graph["9"]["inputs"]["images"] = ["8", 0]
        prompt_id = await submit(client, graph)
        await finished(client, prompt_id)
        content = await client._get_json(f"/history/{prompt_id}")
        assert content[prompt_id]["prompt"][2]["8"]["inputs"]["seed"] == seed


@pytest.mark.parametrize("extra_data", [None, {}, {"extra_pnginfo": {"workflow": {"a": None}}}])
async def test_extra_data_is_sent_only_where_there_is_some(client: Client, extra_data: Any) -> None:
    # null would kill the worker, and the prompt would never end.
    prompt_id = await submit(client, quick(), extra_data=extra_data)
    await finished(client, prompt_id)
    content = await client._get_json(f"/history/{prompt_id}")
    assert content[prompt_id]["prompt"][3] == (extra_data or {}) | {"client_id": CLIENT_ID}


async def test_options_go_with_the_prompt_but_do_not_replace_it(client: Client) -> None:
    blocker = await submit(client, silent(0.4))
    await started(client, blocker)
    last = await submit(client, quick())
    first = await submit(
        client, quick(), options={"front": True, "prompt": {}, "client_id": None, "prompt_id": "x"}
    )
    assert (await client.queue()).pending == (first, last)
    await finished(client, last)


async def test_the_queue_shows_pending_prompts_in_the_order_in_which_they_will_run(client: Client) -> None:
    blocker = await submit(client, silent(0.4))
    await started(client, blocker)
    prompts = [await submit(client, quick(), options={"number": number}) for number in (900, 800, 950, 700)]
    queue = await client.queue()
    assert queue.running == (blocker,)
    assert queue.pending == tuple(prompts[i] for i in (3, 1, 0, 2))
    assert blocker in queue
    assert prompts[0] in queue
    assert "unknown" not in queue
    for prompt_id in prompts:
        await client.dequeue(prompt_id)
    assert (await client.queue()).pending == ()


async def test_an_interrupt_meets_the_running_prompt_only(client: Client) -> None:
    running = await submit(client, steps(500))
    await started(client, running)
    pending = await submit(client, quick())
    await client.interrupt(pending)
    await client.interrupt(str(uuid.uuid4()))
    assert running in (await client.queue()).running
    await client.interrupt(running)
    await finished(client, pending)
    entry = await client.history(running)
    assert entry
    assert not entry.succeeded
    assert entry.messages[-1][0] == "execution_interrupted"


async def test_forgotten_prompts_are_gone_from_the_history(client: Client) -> None:
    prompts = [await submit(client, quick()) for _ in range(2)]
    await finished(client, prompts[1])
    await client.forget(prompts[:1])
    assert await client.history(prompts[0]) is None
    assert await client.history(prompts[1]) is not None


async def test_freed_memory_makes_nodes_run_again(client: Client) -> None:
    graph = quick()
    file = await run(client, graph)
    assert await run(client, graph) == file
    await client.free(unload_models=False, free_memory=True)

    async def is_made_anew() -> bool:
        return await run(client, graph) != file

    await eventually(is_made_anew)


@pytest.mark.parametrize(
    "prefix", ["with space", "a&b=c", "a+b", "50%", "ünï-中文", "sub dir/näme", "a#b?c", "q'uo;te"]
)
async def test_files_of_any_name_are_fetched(client: Client, prefix: str) -> None:
    color = unique()
    graph = {
        "1": empty(color=color),
        "9": node("SaveImage", images=["1", 0], filename_prefix=f"{color}/{prefix}"),
    }
    file = await run(client, graph)
    assert file.subfolder
    assert await client.has_file(file)
    assert (await client.fetch_file(file)).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "file",
    [
        FileRef("nope.png"),
        FileRef("nope.png", "no/folder"),
        FileRef("nope.png", type="temp"),
        FileRef("x.png", type="nowhere"),
        FileRef(""),
        FileRef("../x.png"),
        FileRef("/etc/passwd"),
        FileRef("x.png", "../.."),
    ],
)
async def test_a_file_that_is_not_there_is_missing(client: Client, file: FileRef) -> None:
    assert not await client.has_file(file)
    with pytest.raises(FileMissingError, match="is not there"):
        await client.fetch_file(file)


async def test_an_uploaded_file_is_found_under_the_name_that_was_returned(client: Client) -> None:
    data = png(unique())
    name = await client.upload("upload.png", data)
    assert await client.fetch_file(FileRef(name, type="input")) == data
    assert await client.upload("upload.png", data) == name


async def test_other_bytes_under_the_same_name_get_another_one(client: Client) -> None:
    first, second = png(unique()), png(unique())
    one, other = await client.upload("twice.png", first), await client.upload("twice.png", second)
    assert one != other
    assert await client.fetch_file(FileRef(one, type="input")) == first
    assert await client.fetch_file(FileRef(other, type="input")) == second


async def test_files_can_be_put_into_the_temp_folder(client: Client) -> None:
    name = await client.upload("t.png", data := png(unique()), "temp")
    assert await client.fetch_file(FileRef(name, type="temp")) == data


async def test_uploads_at_the_same_time_do_not_mix(client: Client) -> None:
    files = [png(unique()) for _ in range(12)]
    names = await asyncio.gather(*(client.upload(f"many-{i}.png", data) for i, data in enumerate(files)))
    fetched = await asyncio.gather(*(client.fetch_file(FileRef(name, type="input")) for name in names))
    assert fetched == files


async def test_an_engine_that_is_not_there_is_unreachable() -> None:
    client = Client(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(EngineUnreachableError, match="GET /system_stats"):
        await client.system_stats()
    await client.close()


@contextlib.asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[Client]:
    """A client of a server that sends this and then closes the connection; after nothing, it keeps it open."""

    served: list[asyncio.Task[Any] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.current_task())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if not answer:
            await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server:
        yield client
        await client.close()
        await asyncio.gather(*filter(None, served))


async def test_an_engine_that_does_not_answer_in_time_is_unreachable() -> None:
    async with answering(b"") as client:
        with pytest.raises(EngineUnreachableError, match="Timeout"):
            await client.system_stats(timeout=0.1)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", b"HTTP/1.1 ", b"gopher\r\n\r\n"]
)
async def test_an_answer_that_breaks_off_is_unreachable(answer: bytes) -> None:
    async with answering(answer) as client:
        for call in (client.queue(), client.fetch_file(FileRef("a.png"))):
            with pytest.raises(EngineUnreachableError):
                await call
