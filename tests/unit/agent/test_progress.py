"""The progress map: what recorded runs of a real ComfyUI fold into."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.tasks.progress import Progress
from comfyui.client import HistoryEntry
from comfyui.events import (
    Event,
    NodeAdvanced,
    NodeExecuted,
    NodesCached,
    NodesReported,
    NodeStarted,
    NodeState,
    PreviewImage,
    PromptEnded,
    PromptFailed,
    PromptInterrupted,
    PromptStarted,
    PromptSucceeded,
    parse,
)
from comfyui.workflow import Workflow
from tests.unit.comfyui.recordings import history, messages, submissions

NOW = 1732170000.7


def events_of(name: str, prompt_id: str, *, with_states: bool = True) -> Iterator[Event]:
    """The recorded events of one prompt; plain previews are given to the node that runs, as the feed does."""
    prompt, node = None, None
    for event in map(parse, messages(name, "a")):
        if isinstance(event, PromptStarted | NodeAdvanced):
            prompt, node = event.prompt_id, getattr(event, "node", None)
        one = (
            replace(event, prompt_id=prompt, node=node)
            if event == PreviewImage(None, None, *picture(event))
            else event
        )
        if one.prompt_id == prompt_id and (with_states or not isinstance(one, NodesReported)):
            yield one


def picture(event: Event) -> tuple[str, bytes]:
    return (event.media_type, event.data) if isinstance(event, PreviewImage) else ("", b"")


def fold(name: str, index: int = 0, **options: bool) -> tuple[Progress, list[float]]:
    """The progress after a recorded run, and the overall progress on the way."""
    prompt_id, graph = submissions(name)[index]
    progress, overall = Progress(Workflow(graph), clock=lambda: NOW), []
    for event in events_of(name, prompt_id, **options):
        progress.apply(event)
        overall.append(progress.overall)
    return progress, overall


def files(progress: Progress) -> dict[str, list[str]]:
    """The nodes that have files, with their names."""
    return {n: [f["filename"] for f in p.images] for n, p in progress.snapshot().items() if p.images}


def bars(progress: Progress) -> dict[str, tuple[Any, Any]]:
    return {n: (p.value, p.max) for n, p in progress.snapshot().items()}


RUNS: dict[tuple[str, int], tuple[dict[str, int], dict[str, list[str]]]] = {
    # recording and prompt: (nodes whose bar is longer than 1, files)
    ("ksampler_progress", 0): ({"3": 5}, {"9": ["ks_00001_.png"]}),
    ("cached_resubmit", 0): ({}, {"3": ["cached_00001_.png"]}),
    ("cached_resubmit", 1): ({}, {"3": ["cached_00001_.png"]}),
    ("cached_resubmit", 3): ({}, {"3": ["cached-b_00001_.png"]}),
    ("cached_resubmit", 4): ({}, {"13": ["cached-b_00001_.png"]}),
    ("custom_expand", 0): (
        {},
        {"2": ["ComfyUI_temp_yohrt_00001_.png"], "3": ["ComfyUI_temp_bitdu_00002_.png"]},
    ),
    ("custom_expand", 1): ({}, {"3": ["ComfyUI_temp_bitdu_00002_.png"]}),
    ("custom_blocked", 0): ({}, {"4": ["ComfyUI_temp_tyqza_00001_.png"]}),
    ("custom_blocked", 1): ({}, {"4": ["ComfyUI_temp_tyqza_00001_.png"]}),
    ("multiple_outputs_batch_list", 0): (
        {},
        {
            "2": ["b_16x8_0_00001_.png", "b_16x8_1_00002_.png", "b_16x8_2_00003_.png"],
            "3": [f"ComfyUI_temp_mydra_0000{i}_.png" for i in (1, 2, 3)],
            "5": ["list_00001_.png", "list_00002_.png", "list_00003_.png"],
        },
    ),
    ("multiple_outputs_batch_list", 2): ({}, {"2": ["same_00001_.png"], "3": ["same_00001_.png"]}),
    ("custom_async_and_ui", 0): (
        {},
        {"5": ["x.gif"], "6": ["ComfyUI_temp_dkgpq_00001_.png", "ComfyUI_temp_dkgpq_00002_.png"]},
    ),
    ("save_image_websocket", 0): ({"2": 2}, {"2": ["websocket_2_00001_.png", "websocket_2_00002_.png"]}),
    ("animated_and_video", 0): (
        {},
        {
            "2": ["anim_00001_.webp"],
            "3": ["anim_00003_.png"],
            "4": ["anim_00002_.webm"],
            "6": ["v_00001_.mp4"],
            "8": ["l_00001_.latent"],
        },
    ),
}


@pytest.mark.parametrize("with_states", [True, False], ids=["today", "before progress_state"])
@pytest.mark.parametrize(
    ("run", "expected"),
    RUNS.items(),
    ids=lambda v: "-".join(map(str, v)) if isinstance(v, tuple) and isinstance(v[0], str) else "",
)
def test_a_recorded_run_folds_into_its_map(run: tuple[str, int], expected: Any, with_states: bool) -> None:
    longer, images = expected
    progress, overall = fold(*run, with_states=with_states)
    assert bars(progress) == {n: (longer.get(n, 1),) * 2 for n in progress.snapshot()}
    assert files(progress) == images
    assert overall == sorted(overall)
    assert overall[-1] == 1.0
    assert progress.missing_streams() == []
    assert progress.current_node is None


def test_before_the_run_every_node_has_an_empty_entry() -> None:
    _, graph = submissions("ksampler_progress")[0]
    progress = Progress(Workflow(graph))
    assert list(progress.snapshot()) == list(graph)
    for node in progress.snapshot().values():
        assert node.model_dump(exclude_none=True) == {
            "max": 0,
            "value": 0,
            "start": 0,
            "last_updated": 0,
            "images": [],
        }
    assert (progress.overall, progress.current_node) == (0.0, None)


def test_a_finished_node_looks_as_callers_of_the_old_agent_expect() -> None:
    progress, _ = fold("ksampler_progress")
    assert progress.snapshot()["9"].model_dump(exclude_none=True) == {
        "max": 1,
        "value": 1,
        "start": 1732170000,
        "last_updated": 1732170000,
        "images": [{"filename": "ks_00001_.png", "subfolder": "", "type": "output"}],
    }
    assert all(type(n.value) is int and type(n.max) is int for n in progress.snapshot().values())


def test_a_failed_run_shows_how_far_it_came() -> None:
    progress, overall = fold("execution_error", 1)
    assert bars(progress) == {
        "1": (1, 1), "2": (1, 1), "3": (0, 1), "5": (0, 0), "6": (0, 0), "7": (0, 0), "4": (0, 0),
    }  # fmt: skip
    assert list(files(progress)) == ["2"]
    assert overall == sorted(overall)
    assert overall[-1] == pytest.approx(2 / 7, abs=1e-4)


def test_an_interrupted_sampler_keeps_its_bar() -> None:
    progress, overall = fold("interrupt_sampler")
    assert bars(progress)["3"] == (4, 400)
    assert 0 < overall[-1] < 0.05
    current = progress.current_node
    assert current is not None
    assert (current.id, current.class_type, current.value, current.max) == ("3", "KSampler", 4, 400)


@pytest.mark.parametrize("name", ["ksampler_progress", "custom_expand", "multiple_outputs_batch_list"])
def test_the_history_gives_the_same_outputs_as_the_events(name: str) -> None:
    prompt_id, _ = submissions(name)[0]
    progress, _ = fold(name)
    before = progress.snapshot()
    progress.replace_outputs(
        HistoryEntry(succeeded=True, outputs=history(name, prompt_id)["outputs"], messages=())
    )
    assert progress.snapshot() == before


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


GRAPH = {
    "1": node("EmptyLatentImage"),
    "3": node("KSampler", steps=8, latent_image=["1", 0]) | {"_meta": {"title": "Sampler"}},
    "9": node("SaveImage", images=["3", 0]),
}


@pytest.fixture
def progress() -> Progress:
    return Progress(Workflow(GRAPH), clock=lambda: NOW)


def state(value: float, maximum: float, *, finished: bool = False, node: str = "") -> NodeState:
    return NodeState(node, value, maximum, finished)


class Report(dict[str, NodeState]):
    """States that note how often they were read."""

    reads = 0

    def items(self) -> Any:
        self.reads += 1
        return super().items()


def test_of_many_reports_those_that_nobody_looked_at_are_never_read() -> None:
    now = [0.0]
    progress = Progress(Workflow(GRAPH), clock=lambda: NOW, stopwatch=lambda: now[0])
    reports = [Report({"1": state(step, 100, node="1")}) for step in range(50)]
    for report in reports:
        progress.apply(NodesReported("p", report))
    assert progress.snapshot()["1"].value == 49
    assert sum(report.reads for report in reports) == 2, "the first one, and the one at the look"
    now[0] = 10.0
    late = Report({"1": state(50, 100, node="1")})
    progress.apply(NodesReported("p", late))
    assert late.reads == 1, "times in the map are whole seconds, so that no report may wait for long"


def test_report_that_is_read_late_does_not_take_a_node_back(progress: Progress) -> None:
    progress.apply(NodesReported("p", {}))
    progress.apply(NodesReported("p", {"3": state(2, 8, node="3")}))
    progress.apply(NodeAdvanced("p", "3", 5, 8))
    assert progress.snapshot()["3"].value == 5


def test_a_sampler_weighs_its_steps_and_a_running_one_counts_in_part(progress: Progress) -> None:
    progress.apply(NodesReported("p", {"1": state(1, 1, finished=True, node="1")}))
    assert progress.overall == 0.1
    progress.apply(NodeAdvanced("p", "3", 4, 8))
    assert progress.overall == 0.5
    progress.apply(NodesReported("p", {"3": state(8, 8, finished=True, node="3")}))
    assert progress.overall == 0.9
    progress.apply(PromptSucceeded("p"))
    assert progress.overall == 1.0


def test_cached_nodes_count_as_done(progress: Progress) -> None:
    progress.apply(NodesCached("p", ("1", "3", "unknown")))
    assert progress.overall == 0.9
    assert bars(progress) == {"1": (1, 1), "3": (1, 1), "9": (0, 0)}


def test_only_expected_nodes_count(progress: Progress) -> None:
    progress.expect(["1", "9"])
    progress.apply(NodeAdvanced("p", "3", 8, 8))
    assert progress.overall == 0.0
    progress.apply(NodesCached("p", ("1",)))
    assert progress.overall == 0.5
    progress.apply(PromptSucceeded("p"))
    assert progress.overall == 1.0
    assert bars(progress)["3"] == (8, 8)  # it was reached all the same


def test_a_node_that_will_not_run_keeps_an_empty_entry(progress: Progress) -> None:
    progress.expect(["1"])
    progress.apply(PromptSucceeded("p"))
    assert bars(progress) == {"1": (1, 1), "3": (0, 0), "9": (0, 0)}


def test_expecting_nothing_is_no_division_by_zero(progress: Progress) -> None:
    progress.expect([])
    progress.apply(NodeStarted("p", "1", "1"))
    assert progress.overall == 0.0


def test_overall_never_falls(progress: Progress) -> None:
    progress.apply(NodeAdvanced("p", "3", 6, 8))
    before = progress.overall
    progress.apply(NodeAdvanced("p", "3", 1, 8))  # a second pass of the same node begins
    assert progress.overall == before
    assert bars(progress)["3"] == (1, 8)


def test_before_progress_state_the_next_node_ends_the_last_one(progress: Progress) -> None:
    progress.apply(NodeStarted("p", "1", "1"))
    assert bars(progress)["1"] == (0, 1)
    progress.apply(NodeStarted("p", "3", "3"))
    assert bars(progress)["1"] == (1, 1)
    assert bars(progress)["3"] == (0, 1)


def test_with_progress_state_nodes_may_run_side_by_side(progress: Progress) -> None:
    progress.apply(NodesReported("p", {"1": state(0, 1, node="1")}))
    progress.apply(NodeStarted("p", "1", "1"))
    progress.apply(NodesReported("p", {"1": state(0, 1, node="1"), "9": state(0, 1, node="9")}))
    progress.apply(NodeStarted("p", "9", "9"))
    assert bars(progress)["1"] == (0, 1)
    assert progress.current_node is not None
    assert progress.current_node.id == "9"


def test_expanded_nodes_show_under_the_node_they_came_from(progress: Progress) -> None:
    progress.apply(NodeStarted("p", "3.0.0.1", "3"))
    progress.apply(NodeAdvanced("p", "3.0.0.1", 5, 9))
    progress.apply(NodesReported("p", {"3.0.0.1": state(1, 1, finished=True, node="3")}))
    assert progress.current_node is not None
    assert progress.current_node.title == "Sampler"
    assert bars(progress)["3"] == (0, 1)
    progress.apply(NodeExecuted("p", "3.0.0.2", "3", {"text": ["a"]}))
    progress.apply(NodeExecuted("p", "3.0.0.2.0.0.1", "3.0.0.2", {"text": ["b"]}))
    assert progress.snapshot()["3"].text == ["a", "b"]


def test_events_of_other_nodes_change_nothing(progress: Progress) -> None:
    before = progress.snapshot()
    progress.apply(NodeAdvanced("p", "77", 1, 2))
    progress.apply(NodeExecuted("p", "77", "77", {"images": [{"filename": "x.png"}]}))
    progress.apply(NodesReported("p", {"77": state(1, 1, finished=True, node="77")}))
    progress.apply(PreviewImage("p", None, "image/png", b"x"))
    progress.apply(PromptEnded("p"))
    assert progress.snapshot() == before
    progress.apply(NodeStarted("p", "77", "77"))
    assert progress.current_node is None


def test_a_bar_of_length_zero_is_no_division_by_zero(progress: Progress) -> None:
    progress.apply(NodeAdvanced("p", "3", 0, 0))
    assert bars(progress)["3"] == (0, 1)


def test_a_value_beyond_the_end_counts_as_the_end(progress: Progress) -> None:
    progress.apply(NodeAdvanced("p", "3", 20, 8))
    assert progress.overall == 0.8


def test_fractions_are_kept_and_whole_ones_become_whole_numbers(progress: Progress) -> None:
    progress.apply(NodeAdvanced("p", "3", 2.0, 8.0))
    assert json.dumps(bars(progress)["3"]) == "[2, 8]"
    progress.apply(NodeAdvanced("p", "3", 2.5, 8))
    assert bars(progress)["3"] == (2.5, 8)


def test_times_are_of_the_first_and_the_last_change() -> None:
    clock = iter([100.9, 200.1, 300.5, 400.2])
    progress = Progress(Workflow(GRAPH), clock=lambda: next(clock))
    progress.apply(NodeStarted("p", "3", "3"))
    progress.apply(NodeAdvanced("p", "3", 4, 8))
    entry = progress.snapshot()["3"]
    assert (entry.start, entry.last_updated) == (100, 200)
    progress.apply(NodeAdvanced("p", "3", 4, 8))
    assert progress.snapshot()["3"].last_updated == 200  # nothing has changed


FILE = {"filename": "a.png", "subfolder": "", "type": "output"}


def test_files_are_found_under_any_key_and_once_each(progress: Progress) -> None:
    gif = {"filename": "b.gif", "subfolder": "x", "type": "temp", "format": "image/gif", "workflow": None}
    output = {"images": [FILE, dict(FILE)], "gifs": [gif], "3d": [{"filename": "c.glb"}], "more": [FILE]}
    progress.apply(NodeExecuted("p", "9", "9", output))
    entry = progress.snapshot()["9"]
    assert entry.images == [FILE, gif, {"filename": "c.glb"}]
    assert (entry.text, entry.ui) == (None, None)


def test_files_of_one_name_in_other_folders_are_different_ones(progress: Progress) -> None:
    others = [FILE | {"subfolder": "x"}, FILE | {"type": "temp"}, FILE | {"filename": "b.png"}]
    progress.apply(NodeExecuted("p", "9", "9", {"images": [FILE, *others]}))
    assert progress.snapshot()["9"].images == [FILE, *others]


def test_texts_and_the_rest_are_kept_apart(progress: Progress) -> None:
    output = {
        "text": ["a", 5, None],
        "animated": [True],
        "result": ["m.glb", {"a": 1}],
        "numbers": [1],
        "empty": [],
    }
    progress.apply(NodeExecuted("p", "9", "9", output))
    entry = progress.snapshot()["9"]
    assert entry.text == ["a", "5", "None"]
    assert entry.ui == {"result": ["m.glb", {"a": 1}], "numbers": [1]}
    assert entry.images == []


def test_numbers_that_json_does_not_have_become_null(progress: Progress) -> None:
    # Python writes NaN all the same, and then no browser can read the answer.
    bad = float("nan")
    output = {"scores": [bad, 1.5, [bad, {"a": -float("inf")}]], "images": [FILE | {"score": bad}]}
    progress.apply(NodeExecuted("p", "9", "9", output))
    entry = progress.snapshot()["9"]
    assert entry.ui == {"scores": [None, 1.5, [None, {"a": None}]]}
    assert entry.images == [FILE | {"score": None}]


@pytest.mark.parametrize(
    "output",
    [
        {"images": None},
        {"images": "a.png"},
        {"images": {"filename": "a.png"}},
        {"images": [None, 5, "a.png", [], {}, {"filename": None}, {"filename": 5}, {"filename": ""}]},
        {},
    ],
)
def test_what_is_no_file_is_not_taken_for_one(progress: Progress, output: dict[str, Any]) -> None:
    progress.apply(NodeExecuted("p", "9", "9", output))
    assert progress.snapshot()["9"].images == []


@pytest.mark.parametrize(
    "extra", [{"subfolder": None}, {"type": None}, {"subfolder": ["x"]}, {"type": {"a": 1}}]
)
def test_a_file_with_odd_fields_still_shows(progress: Progress, extra: dict[str, Any]) -> None:
    progress.apply(NodeExecuted("p", "9", "9", {"images": [FILE | extra]}))
    assert progress.snapshot()["9"].images == [FILE | extra]


def test_a_node_that_runs_several_times_adds_up(progress: Progress) -> None:
    for name in "ab":
        progress.apply(NodeExecuted("p", "9", "9", {"images": [FILE | {"filename": name}], "text": [name]}))
    assert files(progress) == {"9": ["a", "b"]}
    assert progress.snapshot()["9"].text == ["a", "b"]


def test_the_history_replaces_what_the_events_told(progress: Progress) -> None:
    progress.apply(NodeAdvanced("p", "3", 4, 8))
    progress.apply(NodeExecuted("p", "9", "9", {"images": [FILE], "text": ["partly"]}))
    outputs = {
        "9": {"images": [FILE | {"filename": "b.png"}]},
        "3.0.0.1": {"text": ["t"]},
        "77": {"text": ["x"]},
    }
    progress.replace_outputs(HistoryEntry(succeeded=True, outputs=outputs, messages=()))
    assert files(progress) == {"9": ["b.png"]}
    assert progress.snapshot()["9"].text is None
    assert progress.snapshot()["3"].text == ["t"]
    assert progress.overall == 1.0


def test_the_history_of_a_failed_prompt_completes_nothing(progress: Progress) -> None:
    progress.apply(NodeAdvanced("p", "3", 4, 8))
    progress.replace_outputs(HistoryEntry(succeeded=False, outputs={"9": {"images": [FILE]}}, messages=()))
    assert progress.overall == 0.4
    assert files(progress) == {"9": ["a.png"]}


class TestStreams:
    """SaveImageWebsocket has no other output than the pictures that it sends."""

    @pytest.fixture
    def progress(self) -> Progress:
        return Progress(Workflow({"1": node("EmptyImage"), "2": node("SaveImageWebsocket", images=["1", 0])}))

    def test_pictures_get_names_of_their_own(self, progress: Progress) -> None:
        for data in (b"one", b"two"):
            progress.apply(PreviewImage("p", "2", "image/png", data))
        assert progress.streamed == {"2": [b"one", b"two"]}
        assert progress.snapshot()["2"].images == [
            {"filename": f"websocket_2_0000{i}_.png", "subfolder": "", "type": "websocket"} for i in (1, 2)
        ]

    def test_previews_of_other_nodes_and_kinds_are_no_output(self, progress: Progress) -> None:
        progress.apply(PreviewImage("p", "1", "image/png", b"x"))
        progress.apply(PreviewImage("p", "2", "image/jpeg", b"x"))
        progress.apply(PreviewImage("p", None, "image/png", b"x"))
        assert progress.streamed == {}

    def test_the_history_does_not_take_them_away(self, progress: Progress) -> None:
        progress.apply(PreviewImage("p", "2", "image/png", b"one"))
        progress.replace_outputs(HistoryEntry(succeeded=True, outputs={}, messages=()))
        assert files(progress) == {"2": ["websocket_2_00001_.png"]}
        assert progress.missing_streams() == []

    def test_a_node_without_any_is_missing_some(self, progress: Progress) -> None:
        progress.apply(PromptSucceeded("p"))
        assert progress.missing_streams() == ["2"]

    def test_a_node_with_fewer_than_its_bar_counts_is_missing_some(self, progress: Progress) -> None:
        progress.apply(NodeAdvanced("p", "2", 0, 3))
        for _ in range(2):
            progress.apply(PreviewImage("p", "2", "image/png", b"x"))
        progress.apply(PromptSucceeded("p"))
        assert progress.missing_streams() == ["2"]
        progress.apply(PreviewImage("p", "2", "image/png", b"x"))
        assert progress.missing_streams() == []

    def test_a_node_that_was_not_to_run_misses_nothing(self, progress: Progress) -> None:
        progress.expect(["1"])
        progress.apply(PromptSucceeded("p"))
        assert progress.missing_streams() == []


IDS = st.sampled_from(["1", "3", "9", "3.0.0.1", "77"])
NUMBERS = st.integers(-5, 2**70) | st.floats(-10, 1e300)
STATES = st.builds(NodeState, IDS, NUMBERS, NUMBERS, st.booleans())
VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda i: (
        st.lists(i, max_size=2)
        | st.dictionaries(st.sampled_from(["filename", "subfolder", "type"]), i, max_size=3)
    ),
    max_leaves=5,
)
EVENTS = st.one_of(
    st.builds(NodesCached, st.none(), st.lists(IDS).map(tuple)),
    st.builds(NodeStarted, st.none(), IDS, IDS),
    st.builds(NodeAdvanced, st.none(), IDS, NUMBERS, NUMBERS),
    st.builds(NodesReported, st.none(), st.dictionaries(IDS, STATES, max_size=3)),
    st.builds(
        NodeExecuted, st.none(), IDS, IDS, st.dictionaries(st.sampled_from(["images", "text", "x"]), VALUES)
    ),
    st.builds(PreviewImage, st.none(), IDS, st.just("image/png"), st.just(b"")),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENTS, max_size=12))
def test_no_events_break_the_fold(events: list[Event]) -> None:
    progress, overall = Progress(Workflow(GRAPH)), [0.0]
    for event in events:
        progress.apply(event)
        overall.append(progress.overall)
        progress.snapshot()
        assert progress.current_node is None or progress.current_node.id in GRAPH
    assert overall == sorted(overall)
    assert 0 <= overall[-1] <= 1
    progress.apply(PromptSucceeded(None))
    assert progress.overall == 1.0


def progress_at(*moments: float) -> Progress:
    """Of two nodes; its stopwatch shows these moments one after the other."""
    graph = {n: {"class_type": "EmptyImage", "inputs": {}} for n in ("1", "2")}
    return Progress(Workflow(graph), stopwatch=iter(moments).__next__)


def test_each_node_is_given_the_time_until_the_next_one_begins() -> None:
    progress = progress_at(10, 12.5, 12.5, 14)
    for event in (
        NodeStarted(None, "1", "1"),
        NodeAdvanced(None, "1", 1, 2),
        NodeStarted(None, "2", "2"),
        PromptSucceeded(None),
    ):
        progress.apply(event)
    assert progress.node_seconds == {"1": 2.5, "2": 1.5}


def test_parts_of_an_expanded_node_add_up_under_it() -> None:
    progress = progress_at(10, 11, 11, 13, 13, 13.25)
    for part in ("1.0", "1.1", "1.2"):
        progress.apply(NodeStarted(None, part, "1"))
    progress.apply(PromptSucceeded(None))
    assert progress.node_seconds == {"1": 3.25}


def test_cached_nodes_ran_for_no_time() -> None:
    progress = progress_at(10, 11)
    progress.apply(NodesCached(None, ("1",)))
    progress.apply(NodeStarted(None, "2", "2"))
    progress.apply(PromptSucceeded(None))
    assert progress.node_seconds == {"2": 1}


@pytest.mark.parametrize(
    "end", [PromptFailed(None, "1", "EmptyImage", "ValueError", "no", ()), PromptInterrupted(None, "1")]
)
def test_node_at_which_a_prompt_ends_has_its_time_too(end: Event) -> None:
    progress = progress_at(10, 14)
    progress.apply(NodeStarted(None, "1", "1"))
    progress.apply(end)
    assert progress.node_seconds == {"1": 4}


def test_no_times_are_told_where_messages_were_lost() -> None:
    progress = progress_at(10, 14, 14)
    progress.apply(NodeStarted(None, "1", "1"))
    progress.apply(NodeStarted(None, "2", "2"))
    progress.replace_outputs(HistoryEntry(True, {}, ()))
    assert progress.node_seconds == {}
