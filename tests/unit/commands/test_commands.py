"""What the commands make of words and names, without an agent."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.client import AgentUnreachable
from agent.commands.files import write_output
from agent.commands.plan import is_name, next_seed
from agent.commands.remote import FAILED, UNREACHABLE, Stop, complain_all, printable
from agent.commands.values import file_of, split_all, text_of, typed, typed_for, typed_like
from agent.commands.work import Run


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        (str(2**64 - 1), 2**64 - 1),
        ("2.5", 2.5),
        ("true", True),
        ("null", None),
        ('"5"', "5"),
        ('["4", 0]', ["4", 0]),
        ("a cat", "a cat"),
        ("", ""),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("9" * 5000, "9" * 5000),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_value_is_json_or_else_text(text, value):
    assert typed(text) == value
    assert type(typed(text)) is type(value)


def test_text_stays_text_where_a_text_belongs():
    assert typed_like("5", "a prompt") == "5"
    assert typed_like("5", 3) == 5
    assert typed_for("5", {"type": "string"}) == "5"
    assert typed_for("5", {"type": "integer"}) == 5
    assert typed_for("1.5", {"enum": ["1.5", 2]}) == "1.5"
    assert typed_for("2", {"enum": ["1.5", 2]}) == 2


def test_value_is_read_from_a_file(tmp_path):
    (tmp_path / "a.txt").write_text("two\nlines\n")
    assert text_of(f"@{tmp_path / 'a.txt'}") == "two\nlines"
    assert text_of("@@home") == "@home"
    (tmp_path / "b.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Stop, match="--image"):
        text_of(f"@{tmp_path / 'b.bin'}")


def test_file_goes_as_data_uri_and_url_as_it_is(tmp_path):
    (tmp_path / "a.png").write_bytes(b"abc")
    assert file_of(str(tmp_path / "a.png")) == "data:image/png;base64,YWJj"
    for url in ("https://x/a.png", "s3://b/k", "oss://b/k", "DATA:image/png;base64,AA=="):
        assert file_of(url) == url


def test_assignments_have_names_and_values():
    assert split_all(["a=b=c", "d="], "--set") == {"a": "b=c", "d": ""}
    for wrong in ("a", "=b"):
        with pytest.raises(Stop, match="NAME=VALUE"):
            split_all([wrong], "--set")


@pytest.mark.parametrize(
    ("seed", "number", "expected"), [(5, 0, 5), (5, 3, 8), (2**64 - 1, 1, 0), (-1, 3, -1), (0, 0, 0)]
)
def test_later_runs_have_the_seeds_that_follow(seed, number, expected):
    assert next_seed(seed, number) == expected


@pytest.mark.parametrize(
    ("word", "expected"), [("invert", True), ("a-b_1", True), ("a.json", False), ("./a", False), ("-", False)]
)
def test_names_and_files_are_told_apart(word, expected):
    assert is_name(word) is expected


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("a.PNG", "t-1-0.png"),
        ("../../etc/passwd", "t-1-0"),
        ("a.tar.gz", "t-1-0.gz"),
        ("a./../../x", "t-1-0"),
        ("a.p\nng", "t-1-0"),
        ("/abs.mp4", "t-1-0.mp4"),
        (".bashrc", "t-1-0"),
        ("a." + "x" * 300, "t-1-0"),
        ("", "t-1-0"),
    ],
)
def test_server_has_no_say_in_where_a_file_goes_but_for_its_extension(tmp_path, filename, name):
    assert write_output(tmp_path, "t-1", 0, filename, b"x") == tmp_path / name
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_nothing_is_overwritten_not_even_through_a_link(tmp_path):
    (tmp_path / "t-1-0.png").symlink_to(tmp_path / "elsewhere")
    assert write_output(tmp_path, "t-1", 0, "a.png", b"x").name == "t-1-0-2.png"
    assert write_output(tmp_path, "t:1", 0, "a.png", b"y").name == "t-1-0-3.png"
    assert not (tmp_path / "elsewhere").exists()


def test_text_of_a_server_moves_no_cursor():
    assert printable("a\x1b[31mb\r\nc\u202ed 图") == "a [31mb  c d 图"


def test_help_needs_nothing_heavy():
    heavy = {"PIL", "aiohttp", "asyncio", "httpx", "pydantic", "requests", "rich", "structlog", "yaml"}
    code = f"import sys, agent.cli; print(sorted({heavy!r} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=20
    )
    assert done.stdout == "[]\n", done.stderr


def test_runs_of_an_agent_that_went_away_are_named_in_one_sentence(capsys):
    runs = [Run(number, f"t{number}", state="running") for number in range(2)]
    for run in runs:
        run.fail(AgentUnreachable("http://x cannot be reached: Connection refused."))
    never = Run(2, "t2")
    never.fail(AgentUnreachable("http://y cannot be reached: Connection refused."))
    assert complain_all([*(run.failure for run in runs), never.failure, Stop("no", FAILED)]) == UNREACHABLE
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    (lost,) = [line for line in said if "http://x" in line]
    assert "`comfyui-agent outputs t0 t1`" in lost
    (absent,) = [line for line in said if "http://y" in line]
    assert "Does an agent run there?" in absent


@pytest.mark.parametrize("group", [[], ["workflow"]])
def test_each_command_is_told_in_a_whole_sentence(group):
    told = CliRunner().invoke(app, [*group, "--help"], env={"COLUMNS": "80"}, terminal_width=80).output
    commands = told.partition("Commands:\n")[2].splitlines()
    assert len(commands) >= 3
    assert [line for line in commands if not line.endswith(".") or line.endswith("...")] == []
