"""Cache, order, folders, origin check: the parts below the routes."""

from __future__ import annotations

import pytest

from comfyui.simulator.cache import Cache, Entry, cache_keys
from comfyui.simulator.faults import Faults
from comfyui.simulator.folders import Folders
from comfyui.simulator.graph import Graph, Schedule
from comfyui.simulator.history import History
from comfyui.simulator.origin import is_foreign
from comfyui.simulator.queue import PromptQueue
from tests.unit.simulator.rasters import CLASSES


def chain(color=0, first="1", second="2"):
    inputs = {"width": 8, "height": 8, "batch_size": 1, "color": color}
    return {
        first: {"class_type": "EmptyImage", "inputs": inputs},
        second: {"class_type": "PreviewImage", "inputs": {"images": [first, 0]}},
    }


def test_keys_depend_on_inputs_and_not_on_ids(tmp_path):
    folders = Folders(tmp_path)
    one, other = (
        cache_keys(chain(), CLASSES, folders),
        cache_keys(chain(first="a", second="b"), CLASSES, folders),
    )
    assert [one["1"], one["2"]] == [other["a"], other["b"]]
    changed = cache_keys(chain(color=1), CLASSES, folders)
    assert one["2"] != changed["2"]


def test_a_loaded_file_counts_with_its_content(tmp_path):
    folders = Folders(tmp_path)
    prompt = {"1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}}}
    (tmp_path / "input/x.png").write_bytes(b"one")
    first = cache_keys(prompt, CLASSES, folders)
    (tmp_path / "input/x.png").write_bytes(b"two")
    assert first != cache_keys(prompt, CLASSES, folders)
    (tmp_path / "input/x.png").unlink()
    assert cache_keys(prompt, CLASSES, folders) != cache_keys(prompt, CLASSES, folders)


def test_a_needless_node_without_inputs_raises(tmp_path):
    with pytest.raises(KeyError, match="inputs"):
        cache_keys({"9": {"class_type": "EmptyImage"}}, CLASSES, Folders(tmp_path))


@pytest.mark.parametrize(("keep", "kept"), [(None, False), (1, False), (9, True)])
def test_classic_keeps_one_prompt_and_lru_keeps_more(keep, kept):
    cache = Cache(keep=keep)
    for key in ("a", "b", "c"):
        cache.begin({}, {"1": key})
        cache.put("1", Entry([[key]]))
    cache.begin({}, {"1": "a"})
    assert (cache.get("1") is not None) is kept


def test_none_forgets_between_prompts_and_not_within():
    cache = Cache(keep=None, forget_all=True)
    cache.begin({}, {"1": "a"})
    cache.put("1", Entry([[1]]))
    assert cache.get("1")
    cache.begin({}, {"1": "a"})
    assert cache.get("1") is None


def test_outputs_come_first_among_independent_nodes():
    prompt = chain() | {"3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}}
    prompt["4"] = {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}}
    schedule = Schedule(Graph(prompt, CLASSES), lambda _: False, ["4", "2"])
    order = []
    while schedule:
        order.append(schedule.pick())
        schedule.done(order[-1])
    assert order == ["1", "2", "3", "4"]


def test_numbers_go_on_from_the_highest_file(tmp_path):
    folders = Folders(tmp_path)
    (tmp_path / "output/sub").mkdir()
    (tmp_path / "output/sub/a_00007_.png").touch()
    place = folders.place("output", "sub/a")
    assert (place.counter, place.subfolder, place.name) == (8, "sub", "a")
    assert folders.place("output", "sub/%width%x%height%", 3, 4).name == "3x4"
    with pytest.raises(Exception, match="outside the output folder"):
        folders.place("output", "../x")


def test_empty_model_folders_show_built_in_names(tmp_path):
    folders = Folders(tmp_path, ("extra.safetensors",))
    assert {"extra.safetensors", "sd_xl_base_1.0.safetensors"} <= set(folders.models("checkpoints"))
    (tmp_path / "models/checkpoints").mkdir()
    (tmp_path / "models/checkpoints/mine.safetensors").touch()
    assert folders.models("checkpoints") == ["extra.safetensors", "mine.safetensors"]


@pytest.mark.parametrize(
    ("host", "origin", "foreign"),
    [
        ("127.0.0.1:8188", None, False),
        ("127.0.0.1:8188", "http://127.0.0.1:8188", False),
        ("127.0.0.1:8188", "http://localhost:8188", True),
        ("127.0.0.1:8188", "http://127.0.0.1:9", True),
        ("localhost", "http://localhost:9", False),
        ("[::1]:8188", "http://evil.example", True),
        ("example.com", "http://evil.example", False),
        ("127.0.0.1:8188", "null", False),
    ],
)
def test_foreign_pages_are_told_apart(host, origin, foreign):
    assert is_foreign(host, origin) is foreign


def test_history_pages_count_from_the_oldest():
    history = History(Faults())
    for prompt_id in "abcd":
        history.add(prompt_id, {})
    history.add("b", {"again": True})
    assert list(history.page(None, -1)) == ["a", "b", "c", "d"]
    assert list(history.page(2, -1)) == ["c", "d"]
    assert list(history.page(2, 1)) == ["b", "c"]
    assert list(history.page(None, 3)) == ["d"]
    assert history.find("nope") == {}


def test_lower_numbers_run_first_and_equal_items_raise_though_queued():
    queue = PromptQueue(History(Faults()))
    for number in (5, -2, 0.5):
        queue.put((number, str(number), {}, {}, []))
    assert [queue.take()[0] for _ in range(3)] == [-2, 0.5, 5]
    queue.put((1, "x", {"1": 1}, {}, []))
    with pytest.raises(TypeError):
        queue.put((1, "x", {"1": 2}, {}, []))
    assert len(queue.show()[1]) == 2
