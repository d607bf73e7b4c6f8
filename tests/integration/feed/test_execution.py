"""One prompt from submission to its end, whatever happens to the WebSocket on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from agent.tasks.progress import Progress
from comfyui.client import Client
from comfyui.events import (
    NodeStarted,
    PreviewImage,
    PromptFailed,
    PromptInterrupted,
    PromptStarted,
    PromptSucceeded,
)
from comfyui.execution import Ended, Execution, Result
from comfyui.feed import Feed
from comfyui.workflow import Workflow
from tests.integration.feed.engine import Engine, empty, node, quick, sampled, silent, steps, streamed
from tests.integration.feed.proxy import Proxy
from tests.integration.feed.run import (
    CONNECT_SECONDS,
    DEADLINE,
    Running,
    Told,
    eventually,
    finished,
    follow,
    started,
)


def assert_complete(told: Told) -> None:
    """It succeeded, and what a caller is shown is whole."""
    assert told.ended.result is Result.SUCCEEDED
    assert len(told.files) == 1
    assert told.progress.overall == 1.0
    assert told.progress.missing_streams() == []


async def test_a_run_without_trouble_is_told_by_its_events_alone(running: Running) -> None:
    told = await running.run(steps())
    assert_complete(told)
    assert told.ended.history is None
    assert told.kinds()[:2] == ["PromptStarted", "NodesCached"]
    assert told.kinds()[-2:] == ["PromptSucceeded", "Ended"]
    assert {event.prompt_id for event in told.events} == {told.ended.prompt_id}


async def test_events_that_come_before_the_answer_to_the_submission_are_kept(running: Running) -> None:
    with running.execution() as execution:
        await execution.submit(graph := quick())
        await finished(running.client, execution.prompt_id)
        told = await follow(execution, graph)
    assert told.kinds()[0] == "PromptStarted"
    assert told.ended.history is None
    assert_complete(told)


async def test_a_prompt_that_is_cached_as_a_whole_shows_the_old_files(running: Running) -> None:
    first = await running.run(graph := quick())
    second = await running.run(graph)
    assert_complete(second)
    assert second.files == first.files


@pytest.fixture(params=[quick, steps], ids=["a quick one", "one that goes on meanwhile"])
def make_graph(request: pytest.FixtureRequest) -> Callable[[], dict[str, Any]]:
    made: Callable[[], dict[str, Any]] = request.param
    return made


async def test_a_cut_at_any_message_leads_to_the_right_end(
    running: Running, proxy: Proxy, make_graph: Callable[[], dict[str, Any]]
) -> None:
    proxy.count_from_here()
    await running.run(make_graph())
    count = proxy.messages
    assert count > 10
    for number in range(1, count + 1):
        assert await running.feed.wait_connected(CONNECT_SECONDS)
        await eventually(lambda: proxy.messages >= 2)  # status and feature_flags of this connection
        proxy.count_from_here()
        proxy.cut_at = number
        told = await running.run(make_graph())
        assert_complete(told)
        proxy.cut_at = None
        proxy.messages = 2 if running.feed.is_connected else 0
    assert running.feed.reconnects > count // 2


async def test_an_engine_that_missed_the_cut_drops_our_second_connection_too(
    running: Running, proxy: Proxy
) -> None:
    # ComfyUI unregisters the client id when the *old* connection ends, and with it the new one.
    with running.execution() as execution:
        await execution.submit(graph := steps(20, 0.02))
        await started(running.client, execution.prompt_id)
        dead = proxy.abandon()
        await eventually(lambda: proxy.accepted == 2)
        assert await running.feed.wait_connected(CONNECT_SECONDS)
        for link in dead:
            link.cut()
        assert_complete(await follow(execution, graph))
    # That prompt's end was not told; so the feed opened another connection, and the next run is heard.
    await eventually(lambda: proxy.accepted == 3)
    assert await running.feed.wait_connected(CONNECT_SECONDS)
    assert (await running.run(quick())).ended.history is None


@pytest.mark.parametrize("number", [1, 5, 9])
async def test_a_half_open_connection_is_found_out_by_its_silence(
    running: Running, proxy: Proxy, number: int
) -> None:
    proxy.count_from_here()
    proxy.stall_at = number
    told = await running.run(quick(), silence_seconds=0.3)
    assert told.ended.history is not None
    assert_complete(told)
    proxy.flow()


async def test_a_slow_network_only_delays_the_events(running: Running, proxy: Proxy) -> None:
    proxy.delay_seconds = 0.01
    told = await running.run(quick())
    assert_complete(told)
    assert "NodeExecuted" in told.kinds()


async def test_a_stolen_client_id_costs_the_silence_once(
    running: Running, engine: Engine, proxy: Proxy
) -> None:
    thief = f"ws://127.0.0.1:{engine.port}/ws?clientId={running.feed.client_id}"
    async with connect(thief, proxy=None):
        pass
    told = await running.run(quick(), silence_seconds=0.2)
    assert told.kinds() == ["Ended"]
    assert_complete(told)
    await eventually(lambda: proxy.accepted == 2)
    assert await running.feed.wait_connected(CONNECT_SECONDS)
    assert (await running.run(quick())).ended.history is None


async def test_a_stolen_client_id_does_not_make_a_long_run_look_stalled(
    running: Running, engine: Engine
) -> None:
    thief = f"ws://127.0.0.1:{engine.port}/ws?clientId={running.feed.client_id}"
    async with connect(thief, proxy=None):
        pass
    told = await running.run(steps(40, 0.05), silence_seconds=0.1, stall_seconds=1.0)
    assert_complete(told)


async def test_a_prompt_that_ends_while_there_is_no_connection_is_found_over_http(
    running: Running, proxy: Proxy
) -> None:
    proxy.refuses = True
    proxy.cut()
    await eventually(lambda: not running.feed.is_connected)
    told = await running.run(quick(), silence_seconds=0.1)
    assert_complete(told)
    assert told.ended.history is not None
    assert not running.feed.is_connected


async def test_a_prompt_that_was_submitted_without_connection_is_looked_up_when_it_is_back(
    running: Running, proxy: Proxy
) -> None:
    proxy.refuses = True
    proxy.cut()
    await eventually(lambda: not running.feed.is_connected)
    with running.execution(silence_seconds=60) as execution:
        await execution.submit(graph := quick())
        await finished(running.client, execution.prompt_id)
        proxy.refuses = False
        assert_complete(await follow(execution, graph))


async def test_a_prompt_of_which_the_engine_knows_nothing_is_lost(running: Running, proxy: Proxy) -> None:
    proxy.stall()
    with running.execution(silence_seconds=0.1) as execution:
        await execution.submit(graph := quick())
        await finished(running.client, execution.prompt_id)
        await running.client.forget([execution.prompt_id])
        told = await follow(execution, graph)
    assert told.ended.result is Result.LOST
    proxy.flow()


@pytest.mark.parametrize(
    "event",
    [
        "execution_start",
        "execution_cached",
        "progress_state",
        "executing",
        "executed",
        "execution_success",
        "executing-null",
    ],
)
async def test_a_lost_message_does_not_change_the_end(running: Running, engine: Engine, event: str) -> None:
    engine.set_faults(f"lose-event={event}")
    told = await running.run(steps())
    assert told.ended.result is Result.SUCCEEDED
    assert told.progress.overall == 1.0
    assert (
        told.files or event == "executed"
    )  # who wants every output looks at the history where one is missing


@pytest.mark.parametrize("lost", [None, "execution_success", "executing-null", "executed"])
async def test_a_history_that_comes_late_does_not_make_a_prompt_lost(
    running: Running, engine: Engine, lost: str | None
) -> None:
    engine.set_faults("late-history=0.3", *([f"lose-event={lost}"] if lost else []))
    told = await running.run(quick(), silence_seconds=0.2)
    assert told.ended.result is Result.SUCCEEDED


@pytest.mark.parametrize("lost", ["executing-null", "execution_error"])
async def test_a_failure_is_told_whole_also_when_a_message_is_lost(
    running: Running, engine: Engine, lost: str
) -> None:
    engine.set_faults(f"lose-event={lost}")
    graph = {
        "1": empty(),
        "2": node("LabRaise", image=["1", 0], message="as asked"),
        "9": node("PreviewImage", images=["2", 0]),
    }
    told = await running.run(graph)
    assert told.ended.result is Result.FAILED
    assert isinstance(told.ended.error, PromptFailed)
    assert (told.ended.error.node, told.ended.error.node_class) == ("2", "LabRaise")
    assert (told.ended.error.exception_type, told.ended.error.message) == ("RuntimeError", "as asked")


async def test_a_blocked_output_is_no_failure(running: Running) -> None:
    graph = quick() | {
        "2": node("LabBlock", image=["1", 0], text="not today"),
        "3": node("PreviewImage", images=["2", 0]),
    }
    told = await running.run(graph)
    assert_complete(told)
    blocked = [e for e in told.events if isinstance(e, PromptFailed)]
    assert [(e.node, e.is_blocked_output) for e in blocked] == [("3", True)]
    assert "not today" in blocked[0].message


async def test_an_interrupted_prompt_says_so(running: Running) -> None:
    with running.execution() as execution:
        await execution.submit(graph := steps(500))
        await started(running.client, execution.prompt_id)
        await running.client.interrupt(execution.prompt_id)
        told = await follow(execution, graph)
    assert told.ended.result is Result.INTERRUPTED
    assert isinstance(told.ended.error, PromptInterrupted)


async def test_an_interrupt_that_was_not_heard_is_found_in_the_history(
    running: Running, proxy: Proxy
) -> None:
    with running.execution(silence_seconds=0.1) as execution:
        await execution.submit(graph := steps(500))
        await started(running.client, execution.prompt_id)
        proxy.stall()
        await running.client.interrupt(execution.prompt_id)
        told = await follow(execution, graph)
    assert told.ended.result is Result.INTERRUPTED
    proxy.flow()


async def test_prompts_at_the_same_time_get_their_own_events_only(running: Running) -> None:
    graphs = [
        steps() | {"9": node("SaveImage", images=["2", 0], filename_prefix=f"own-{i}")} for i in range(4)
    ]
    told = await asyncio.gather(*(running.run(graph) for graph in graphs))
    for index, one in enumerate(told):
        assert_complete(one)
        assert one.files[0].startswith(f"own-{index}")
        assert {event.prompt_id for event in one.events} == {one.ended.prompt_id}


async def test_previews_with_metadata_are_of_the_right_prompt_and_node(running: Running) -> None:
    for told in await asyncio.gather(running.run(sampled()), running.run(sampled())):
        previews = [e for e in told.events if isinstance(e, PreviewImage)]
        assert [(e.prompt_id, e.node, e.media_type) for e in previews] == [
            (told.ended.prompt_id, "3", "image/jpeg")
        ] * 3


async def test_previews_without_metadata_are_of_the_node_that_runs(old_engine: Engine) -> None:
    client, feed = Client(old_engine.url), Feed(old_engine.url)
    await feed.start()
    feed.resume()
    assert await feed.wait_connected(CONNECT_SECONDS)
    running = Running(client, feed)
    for told in await asyncio.gather(running.run(sampled()), running.run(sampled())):
        assert_complete(told)
        previews = [e for e in told.events if isinstance(e, PreviewImage)]
        assert [(e.prompt_id, e.node) for e in previews] == [(told.ended.prompt_id, "3")] * 3
    streams = await running.run(streamed(2))
    assert len(streams.files) == 2
    await feed.stop()
    await client.close()


async def test_pictures_sent_over_the_websocket_are_all_there(running: Running) -> None:
    told = await running.run(streamed(5))
    assert len(told.files) == len(told.progress.streamed["9"]) == 5
    assert told.progress.missing_streams() == []


async def test_a_picture_lost_with_the_connection_is_noticed(running: Running, proxy: Proxy) -> None:
    proxy.count_from_here()
    await running.run(streamed(3))
    count = proxy.messages
    complete = 0
    for number in range(1, count + 1):
        assert await running.feed.wait_connected(CONNECT_SECONDS)
        await eventually(lambda: proxy.messages >= 2)
        proxy.count_from_here()
        proxy.cut_at = number
        told = await running.run(streamed(3))
        proxy.cut_at = None
        proxy.messages = 2 if running.feed.is_connected else 0
        assert told.ended.result is Result.SUCCEEDED
        if told.progress.missing_streams() == []:
            complete += 1
            assert len(told.files) == 3
    assert 0 < complete < count


class TestStop:
    """Whatever it is stopped in, nobody else is harmed."""

    async def test_a_pending_prompt_leaves_the_queue(self, running: Running) -> None:
        with running.execution() as first, running.execution() as second:
            await first.submit(graph := silent(0.4))
            await second.submit(quick())
            async with asyncio.timeout(DEADLINE):
                ended = await second.stop()
            assert ended.result is Result.LOST  # it never ran, so the engine knows nothing of it
            assert await running.client.history(second.prompt_id) is None
            assert_complete(await follow(first, graph))

    async def test_a_running_prompt_is_interrupted_and_the_next_one_runs(self, running: Running) -> None:
        with running.execution() as first, running.execution() as second:
            await first.submit(steps(500))
            await second.submit(graph := steps())
            await started(running.client, first.prompt_id)
            async with asyncio.timeout(DEADLINE):
                ended = await first.stop()
            assert ended.result is Result.INTERRUPTED
            assert_complete(await follow(second, graph))

    async def test_a_prompt_stopped_right_after_its_submission_ends(self, running: Running) -> None:
        # ComfyUI clears the interrupt flag when a prompt begins: one that comes in between is forgotten.
        for _ in range(10):
            with running.execution() as execution:
                await execution.submit(steps(500))
                async with asyncio.timeout(DEADLINE):
                    ended = await execution.stop()
                assert ended.result in (Result.INTERRUPTED, Result.LOST)
                assert execution.prompt_id not in await running.client.queue()

    async def test_a_prompt_that_has_ended_stays_as_it_was(self, running: Running) -> None:
        with running.execution() as first, running.execution() as second:
            await first.submit(graph := quick())
            await finished(running.client, first.prompt_id)
            await second.submit(other := steps(30))
            await started(running.client, second.prompt_id)
            async with asyncio.timeout(DEADLINE):
                ended = await first.stop()
            assert ended.result is Result.SUCCEEDED
            assert ended.history is not None
            assert "9" in ended.history.outputs
            assert graph
            assert_complete(await follow(second, other))

    async def test_a_prompt_that_was_never_submitted_is_lost_and_the_running_one_goes_on(
        self, running: Running
    ) -> None:
        with running.execution() as unknown, running.execution() as other:
            await other.submit(graph := steps(30))
            await started(running.client, other.prompt_id)
            async with asyncio.timeout(DEADLINE):
                assert (await unknown.stop()).result is Result.LOST
            assert_complete(await follow(other, graph))

    async def test_a_node_that_does_not_listen_is_waited_for(self, running: Running) -> None:
        with running.execution() as execution:
            await execution.submit(silent(0.8))
            await started(running.client, execution.prompt_id)
            async with asyncio.timeout(DEADLINE):
                ended = await execution.stop()
            assert ended.result is Result.INTERRUPTED
            assert execution.prompt_id not in await running.client.queue()

    async def test_stopping_needs_no_websocket(self, running: Running, proxy: Proxy) -> None:
        with running.execution() as execution:
            await execution.submit(steps(500))
            await started(running.client, execution.prompt_id)
            proxy.refuses = True
            proxy.cut()
            async with asyncio.timeout(DEADLINE):
                assert (await execution.stop()).result is Result.INTERRUPTED

    async def test_stopping_works_after_the_execution_was_left(self, running: Running) -> None:
        with running.execution() as execution:
            await execution.submit(steps(500))
            await started(running.client, execution.prompt_id)
        async with asyncio.timeout(DEADLINE):
            assert (await execution.stop()).result is Result.INTERRUPTED


class TestPrivateEngine:
    """What an engine does not recover from."""

    @pytest.fixture
    def start(self, tmp_path: Path) -> Iterator[Callable[..., Engine]]:
        engines: list[Engine] = []

        def start_one(*switches: str, port: int | None = None) -> Engine:
            engines.append(Engine(tmp_path, *switches, port=port))
            return engines[-1]

        yield start_one
        for engine in engines:
            engine.stop()

    async def connected(self, engine: Engine) -> Running:
        feed = Feed(engine.url)
        await feed.start()
        feed.resume()
        assert await feed.wait_connected(CONNECT_SECONDS)
        return Running(Client(engine.url), feed)

    async def test_a_prompt_that_hangs_is_stalled_and_the_one_behind_it_only_waits(
        self, start: Callable[..., Engine]
    ) -> None:
        running = await self.connected(start("--fault", "hang@node=9"))
        with running.execution(silence_seconds=0.1, stall_seconds=0.5) as first:
            await first.submit(graph := quick())
            await started(running.client, first.prompt_id)
            with running.execution(silence_seconds=0.1, stall_seconds=0.5) as second:
                await second.submit(quick())
                events = second.events()
                waiting = asyncio.ensure_future(anext(events))
                told = await follow(first, graph)
                assert told.ended.result is Result.STALLED
                assert not waiting.done()
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
        await running.feed.stop()
        await running.client.close()

    async def test_an_engine_that_was_started_anew_has_lost_the_prompt(
        self, start: Callable[..., Engine]
    ) -> None:
        engine = start()
        running = await self.connected(engine)
        with running.execution(silence_seconds=0.1) as execution:
            await execution.submit(graph := silent(60))
            await started(running.client, execution.prompt_id)
            engine.stop()
            following = asyncio.create_task(follow(execution, graph))
            # While it does not answer, nothing is decided.
            await eventually(lambda: not running.feed.is_connected)
            assert not following.done()
            start(port=engine.port)
            async with asyncio.timeout(DEADLINE):
                assert (await following).ended.result is Result.LOST
        await running.feed.stop()
        await running.client.close()


async def test_an_execution_that_is_left_early_stops_listening(running: Running) -> None:
    with running.execution() as execution:
        await execution.submit(steps(20))
        async with asyncio.timeout(DEADLINE):
            async for event in execution.events():
                if isinstance(event, NodeStarted):
                    break
    assert running.feed._followers == {}
    await finished(running.client, execution.prompt_id)


async def test_progress_and_events_of_a_run_agree(running: Running) -> None:
    overall: list[float] = []
    with running.execution() as execution:
        await execution.submit(graph := steps(10, 0.005))
        progress = Progress(Workflow(graph))
        async with asyncio.timeout(DEADLINE):
            async for event in execution.events():
                progress.apply(event)
                overall.append(progress.overall)
                if isinstance(event, PromptStarted):
                    assert progress.overall == 0.0
                if isinstance(event, PromptSucceeded | Ended):
                    assert progress.overall == 1.0
    assert overall == sorted(overall)
    assert len(set(overall)) > 3


def test_an_execution_has_a_prompt_id_that_every_version_takes(client: Client) -> None:
    execution = Execution(client, Feed("http://127.0.0.1:1"), silence_seconds=1, stall_seconds=1)
    assert [len(part) for part in execution.prompt_id.split("-")] == [8, 4, 4, 4, 12]
    assert execution.prompt_id == execution.prompt_id.lower()
