"""Spans as a real collector gets them: agents and front in processes of their own, OTLP over HTTP."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest_asyncio
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.integration.agent.service import PATIENCE_SECONDS, eventually
from tests.integration.reliability.conftest import MakeAgent
from tests.integration.reliability.fleet import AgentProcess, slow
from tests.ports import free_port
from tests.serving import serving

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=7"}

#: The collector's own, in its address.
PASSWORD = "collectors-password"

STAGES = {"engine", "inputs", "queue", "run", "collect", "deliver"}


@dataclass
class Collector:
    """Takes spans as OpenTelemetry's own collector does."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    services: set[str] = field(default_factory=set)
    stalled: asyncio.Event | None = None
    #: What is answered to spans instead of taking them, and how often it was.
    refusal: int | None = None
    refused: int = 0

    async def take(self, request: web.Request) -> web.Response:
        if self.refusal is not None:
            self.refused += 1
            return web.Response(status=self.refusal)
        if self.stalled is not None:
            await self.stalled.wait()
        body = await request.read()
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            self.services.add(names["service.name"])
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")

    async def got(self, name: str, trace_id: str = TRACE) -> Span:
        """The first span with this name of the trace, as soon as it is there."""
        found: list[Span] = []

        async def is_there() -> bool:
            found[:] = [s for s in self.spans if s.name == name and s.trace_id.hex() == trace_id]
            return bool(found)

        await eventually(is_there, PATIENCE_SECONDS)
        return found[0]

    def parents(self, span: Span) -> list[Span]:
        """Those above it that are there by now, from the nearest on."""
        by_id = {one.span_id: one for one in self.spans}
        found: list[Span] = []
        while span.parent_span_id in by_id:
            found.append(span := by_id[span.parent_span_id])
        return found

    def children(self, parent: Span) -> set[str]:
        return {span.name for span in self.spans if span.parent_span_id == parent.span_id}


def facts(span: Span) -> dict[str, object]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in span.attributes}


@pytest_asyncio.fixture(loop_scope="session")
async def collector() -> AsyncIterator[Collector]:
    found = Collector()
    async with serving(web.post("/v1/traces", found.take)) as url:
        found.url = url.replace("//", f"//agent:{PASSWORD}@")
        yield found
        if found.stalled is not None:
            found.stalled.set()


def told(collector: Collector, **more: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100", **more}


async def records(*agents: AgentProcess) -> None:
    for agent in agents:
        await eventually(lambda agent=agent: _is_on(agent), PATIENCE_SECONDS)
        assert PASSWORD not in str(agent.logged("traces.on"))


async def _is_on(agent: AgentProcess) -> bool:
    return bool(agent.logged("traces.on"))


async def test_task_is_one_trace_from_its_caller_over_the_front_to_each_stage(
    make_agent: MakeAgent, collector: Collector
) -> None:
    engine = await make_agent(**told(collector, OTEL_SERVICE_NAME="gpu"))
    front = await make_agent(
        **told(collector, OTEL_SERVICE_NAME="cpu"),
        **engine.fleet,
        AGENT_ROLE="front",
        AGENT_ENGINE_URL=engine.url,
    )
    await records(engine, front)
    (await front.run(slow(5), "traced", headers=CALLER)).ok()

    task = await collector.got("task")
    await collector.got("deliver")
    assert facts(task) == {"task_id": "traced", "state": "succeeded", "attempts": 1}
    assert task.status.code == Status.STATUS_CODE_UNSET

    async def has_all() -> bool:
        return collector.children(task) >= STAGES and len(collector.parents(task)) == 2

    await eventually(has_all)
    inner, outer = collector.parents(task)
    assert (inner.name, outer.name) == ("POST /api/run", "POST /api/run")
    assert outer.parent_span_id.hex() == PARENT
    assert inner.kind == outer.kind == Span.SPAN_KIND_SERVER
    assert facts(outer)["http.response.status_code"] == 200
    assert outer.trace_state == "vendor=7"
    assert collector.services == {"gpu", "cpu"}

    seconds = {s.name: (s.end_time_unix_nano - s.start_time_unix_nano) / 1e9 for s in collector.spans}
    timings = (await engine.task("traced"))["timings"]
    assert all(abs(seconds[stage] - timings[stage]) < 0.001 for stage in STAGES)
    for agent, event in ((front, "request.finished"), (engine, "task.finished")):
        assert agent.logged(event)[-1]["trace_id"] == TRACE


async def test_failure_is_an_error_of_its_task_and_background_work_stays_in_the_trace(
    make_agent: MakeAgent, collector: Collector
) -> None:
    agent = await make_agent(**told(collector))
    await records(agent)
    await agent.engine.fault("oom@node=1,times=2")
    await agent.submit(slow(1), "failing", **CALLER)
    assert (await agent.finished("failing"))["error"]["code"] == "OutOfMemory"
    task = await collector.got("task")
    assert (task.status.code, task.status.message) == (Status.STATUS_CODE_ERROR, "OutOfMemory")
    assert facts(task)["attempts"] == 2
    (await agent.run(slow(1))).ok()
    await eventually(lambda: _own_trace(collector))


async def _own_trace(collector: Collector) -> bool:
    """Whether a request without a trace began one of its own."""
    return any(s.name == "task" and s.trace_id.hex() != TRACE for s in collector.spans)


async def test_spans_that_were_not_sent_are_sent_at_the_end_and_a_dead_collector_holds_up_nothing(
    make_agent: MakeAgent, collector: Collector
) -> None:
    late = {"OTEL_BSP_SCHEDULE_DELAY": "600000"}
    agent = await make_agent(**told(collector) | late)
    await records(agent)
    (await agent.run(slow(1), headers=CALLER)).ok()
    assert collector.spans == []
    assert await agent.stop() == 0
    assert {"task", "POST /api/run"} <= {span.name for span in collector.spans}

    stuck = await make_agent(**told(collector))
    await records(stuck)
    collector.stalled = asyncio.Event()
    (await stuck.run(slow(1), headers=CALLER)).ok()
    assert await stuck.stop() == 0
    assert stuck.logged("traces.not_sent")


async def test_collector_that_takes_no_spans_is_told_of_once_and_so_is_its_return(
    make_agent: MakeAgent, collector: Collector
) -> None:
    agent = await make_agent(**told(collector))
    await records(agent)
    for time in (1, 2):
        collector.refusal, collector.refused = 401, 0
        for seen in (1, 2, 3):
            (await agent.run(slow(1))).ok()
            await eventually(lambda seen=seen: _was_refused(collector, seen))
        collector.refusal = None
        (await agent.run(slow(1))).ok()
        await eventually(lambda time=time: _says(agent, "traces.restored", time))
        assert len(agent.logged("traces.lost")) == time
        assert agent.logged("traces.restored")[-1]["lost"] >= 3
    assert "401" in agent.logged("traces.lost")[0]["reason"]
    assert agent.logged("library.message") == []


async def test_line_about_a_collector_that_is_away_holds_no_secret_of_its_address(
    make_agent: MakeAgent,
) -> None:
    address = f"http://agent:{PASSWORD}@127.0.0.1:{free_port()}/?key={PASSWORD}"
    quick = {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "3"}
    agent = await make_agent(
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=address, OTEL_EXPORTER_OTLP_ENDPOINT=address, **quick
    )
    await records(agent)
    (await agent.run(slow(1))).ok()
    await eventually(lambda: _says(agent, "traces.lost", 1))
    assert "refused" in agent.logged("traces.lost")[0]["reason"]
    assert PASSWORD not in str(agent.logged("traces.lost"))


async def _was_refused(collector: Collector, times: int) -> bool:
    return collector.refused >= times


async def _says(agent: AgentProcess, event: str, times: int) -> bool:
    return len(agent.logged(event)) >= times


async def test_without_a_collector_the_callers_trace_is_passed_on_and_logged(make_agent: MakeAgent) -> None:
    engine = await make_agent()
    front = await make_agent(**engine.fleet, AGENT_ROLE="front", AGENT_ENGINE_URL=engine.url)
    (await front.run(slow(1), "passed", headers=CALLER)).ok()
    assert engine.logged("task.finished")[-1]["trace_id"] == TRACE
    for wrong in ("", "x", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01"):
        (await engine.run(slow(1), headers={"traceparent": wrong})).ok()
        assert "trace_id" not in engine.logged("task.finished")[-1]
