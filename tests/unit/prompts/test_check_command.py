"""`comfyui-agent check-prompts`, and the figures that docs/safety.md states."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.safety.prompts.check_command import parse
from tests.labelled.prompts import HELD_OUT, write

PAGE = Path(__file__).parents[3] / "docs" / "safety.md"
SCORE = re.compile(r"precision ([\d.]+), recall ([\d.]+)")


def check(*args: str, given: str | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["check-prompts", *args], input=given, env={"AGENT_SAFETY_TERMS": ""})
    return result.exit_code, result.output


@pytest.mark.parametrize(("name", "floor"), [("made", (0.99, 0.99)), ("held out", (0.95, 0.85))])
def test_lists_do_as_well_as_the_page_says(name: str, floor: tuple[float, float], tmp_path: Path) -> None:
    file = HELD_OUT
    if name == "made":
        file = tmp_path / "prompts.tsv"
        assert write(file) >= 200
    _, said = check(str(file))
    found = SCORE.search(said)
    assert found is not None
    assert float(found[1]) >= floor[0], said
    assert float(found[2]) >= floor[1], said
    stated = re.search(rf"\| {name} \| (\d+) \| ([\d.]+) \| ([\d.]+) \|", PAGE.read_text())
    assert stated is not None, "docs/safety.md does not state the figures of this set"
    assert stated.groups() == (str(len(list(parse(file.read_text().splitlines())))), found[1], found[2])


def test_prompts_are_read_from_a_file_or_from_standard_input(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("unicorn\n")
    terms = ("--terms", str(tmp_path / "mine.txt"))
    code, said = check("-", *terms, given="a white horse\n\n# a comment\na unicorn\n")
    assert code == 1
    assert said.splitlines()[:2] == ["1: passed: a white horse", '4: refused: mine ("unicorn"): a unicorn']
    code, said = check(*terms, given="safe\ta horse\nunsafe\tu n i c o r n\n")
    assert code == 0
    assert "precision 1.000, recall 1.000" in said
    code, said = check(*terms, given="unsafe\ta horse\nsafe\ta unicorn\n")
    assert code == 1
    assert said.count("WRONG") == 2
    assert "precision 0.000, recall 0.000" in said


def test_json_is_an_object_a_line(tmp_path: Path) -> None:
    code, said = check("--json", given="unsafe\ta pistol\nsafe\ta rose\n")
    first, second, score = map(json.loads, said.splitlines())
    assert code == 0
    assert first == {
        "line": 1,
        "refused": True,
        "found": {"weapons": "pistol*"},
        "unsafe": True,
        "text": "a pistol",
    }
    assert (second["refused"], second["found"]) == (False, {})
    assert score == {"precision": 1.0, "recall": 1.0}


@pytest.mark.parametrize("args", [["nowhere.txt"], ["-", "--terms", "nowhere.txt"]])
def test_file_that_cannot_be_read_is_named(args: list[str]) -> None:
    code, said = check(*args, given="text")
    assert code == 2
    assert "nowhere.txt" in said
