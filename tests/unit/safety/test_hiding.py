"""Which of the engine's files /view may show while pictures are reviewed."""

from __future__ import annotations

import pytest
from multidict import MultiDict

from agent.errors import FileHidden
from agent.safety.hiding import HiddenFiles
from comfyui.client import FileRef

OUTPUT = {"filename": "x_00001_.png", "type": "output"}
INPUT = {"filename": "photo.png", "subfolder": "a", "type": "input"}


def is_shown(hidden: HiddenFiles, query: object) -> bool:
    try:
        hidden.check(MultiDict(query))
    except FileHidden:
        return False
    return True


#: Ways to name something else than an input.
TRICKS = [
    OUTPUT,
    {"filename": "x_00001_.png"},
    {"filename": "x_00001_.png [output]", "type": "input"},
    {"filename": "blake3:abcdef", "type": "input"},
    {"filename": "x_00001_.png", "type": "temp"},
    [("filename", "photo.png"), ("type", "output"), ("type", "input")],
    [("filename", "photo.png"), ("filename", "x.png [temp]"), ("type", "input")],
]


@pytest.mark.parametrize("query", TRICKS)
def test_enforced_by_the_server_only_inputs_are_shown(query: object) -> None:
    hidden = HiddenFiles(is_always=True)
    assert is_shown(hidden, INPUT)
    assert not is_shown(hidden, query)


@pytest.mark.parametrize("query", TRICKS)
def test_enforced_by_a_request_that_holds_while_its_task_is_at_work(query: object) -> None:
    hidden = HiddenFiles(is_always=False)
    assert is_shown(hidden, query)
    hidden.begin("task")
    assert is_shown(hidden, INPUT)
    assert not is_shown(hidden, query)
    hidden.end("task")
    assert is_shown(hidden, query)


def test_refused_file_stays_hidden_by_any_name() -> None:
    hidden = HiddenFiles(is_always=False)
    hidden.add([FileRef("x_00001_.png", "", "output"), FileRef("y.png", "a/b", "temp")])
    for query in (
        OUTPUT,
        {"filename": "x_00001_.png"},
        {"filename": "x_00001_.png", "subfolder": "."},
        {"filename": "x_00001_.png", "subfolder": "c/.."},
        {"filename": "./x_00001_.png"},
        {"filename": "x_00001_.png [output]", "type": "temp"},
        {"filename": "y.png", "subfolder": "a//b/", "type": "temp"},
        [*OUTPUT.items(), ("type", "temp")],
    ):
        assert not is_shown(hidden, query), query
    for query in ({"filename": "x_00002_.png"}, {"filename": "x_00001_.png", "type": "temp"}, INPUT):
        assert is_shown(hidden, query), query
