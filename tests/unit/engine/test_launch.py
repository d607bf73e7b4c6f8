"""Commands, addresses and environments of engines."""

from __future__ import annotations

import sys

import pytest

from comfyui.errors import EngineFailedError
from comfyui.launch import (
    checkout_command,
    child_environment,
    dying_with_us,
    listen_address,
    simulator_command,
    template_command,
)


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "main.py").touch()
    return tmp_path


def make_python(folder, venv):
    python = folder / venv / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    return str(python)


def test_simulator_runs_with_our_own_interpreter():
    command = simulator_command(9001, "--speed 2 --label 'two words'")
    assert command == (
        *(sys.executable, "-m", "comfyui.simulator", "--port", "9001"),
        *("--preview-method", "auto"),
        *("--speed", "2", "--label", "two words"),
    )


def test_checkout_listens_on_loopback_only_and_its_users_flags_come_last(checkout):
    assert checkout_command(checkout, None, "--cpu --preview-method 'none'", 9001) == (
        *("python3", str(checkout / "main.py"), "--listen", "127.0.0.1", "--port", "9001"),
        *("--disable-auto-launch", "--preview-method", "auto", "--cpu", "--preview-method", "none"),
    )


def test_checkout_prefers_named_interpreter_then_dot_venv_then_venv(checkout):
    venv = make_python(checkout, "venv")
    assert checkout_command(checkout, None, "", 1)[0] == venv
    dot_venv = make_python(checkout, ".venv")
    assert checkout_command(checkout, None, "", 1)[0] == dot_venv
    assert checkout_command(checkout, "/opt/python", "", 1)[0] == "/opt/python"


def test_folder_without_main_py_is_refused_by_name(tmp_path):
    with pytest.raises(EngineFailedError, match=r"which has no main\.py") as raised:
        checkout_command(tmp_path, None, "", 1)
    assert str(tmp_path) in str(raised.value)


def test_template_fills_in_the_port_and_leaves_other_braces_alone():
    assert template_command("serve --at 127.0.0.1:{port} --json '{\"a\": 1}'", 9) == (
        *("serve", "--at", "127.0.0.1:9", "--json", '{"a": 1}'),
    )


@pytest.mark.parametrize("template", ["", "  "])
def test_empty_template_is_refused(template):
    with pytest.raises(EngineFailedError, match="COMFYUI_COMMAND is empty"):
        template_command(template, 1)


def test_open_quote_is_refused_with_the_name_of_the_setting():
    with pytest.raises(
        EngineFailedError, match="COMFYUI_ARGS cannot be split into words: No closing quotation"
    ):
        simulator_command(1, "--title 'x")


@pytest.mark.parametrize(
    ("args", "url", "moved_by"),
    [
        ("--cpu --lowvram", "http://127.0.0.1:9001", ()),
        ("--port 8188", "http://127.0.0.1:8188", ("--port 8188",)),
        ("--port=8188", "http://127.0.0.1:8188", ("--port 8188",)),
        ("--po 8188", "http://127.0.0.1:8188", ("--po 8188",)),
        ("--listen --cpu", "http://127.0.0.1:9001", ("--listen",)),
        ("--listen 0.0.0.0", "http://127.0.0.1:9001", ("--listen 0.0.0.0",)),
        ("--listen ::", "http://[::1]:9001", ("--listen ::",)),
        ("--listen 10.0.0.5,127.0.0.1", "http://127.0.0.1:9001", ("--listen 10.0.0.5,127.0.0.1",)),
        ("--listen 10.0.0.5 --port 1", "http://10.0.0.5:1", ("--listen 10.0.0.5", "--port 1")),
        ("--preview-method port", "http://127.0.0.1:9001", ()),
    ],
)
def test_flags_that_move_the_engine_are_followed_and_reported(args, url, moved_by):
    address = listen_address(args, 9001)
    assert (address.url, address.moved_by) == (url, moved_by)


@pytest.mark.parametrize("args", ["--port", "--port x", "--port="])
def test_port_that_is_no_number_is_refused(args):
    with pytest.raises(EngineFailedError, match="which is no number"):
        listen_address(args, 9001)


def test_environment_loses_secrets_and_keeps_the_rest():
    secrets = (
        *("AGENT_API_KEYS", "REDIS_URL", "ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_SECURITY_TOKEN"),
        *("MY_SECRET", "AWS_SECRET_ACCESS_KEY", "FC_ACCESS_KEY_ID", "accessKeySecret", "securityToken"),
        *("AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
    )
    kept = ("PATH", "CUDA_VISIBLE_DEVICES", "HF_TOKEN", "HF_HOME", "FC_REGION", "COMFYUI_ROOT")
    environment = child_environment(dict.fromkeys(secrets + kept, "x"))
    assert environment == {**dict.fromkeys(kept, "x"), "PYTHONUNBUFFERED": "1"}


def test_without_setpriv_the_command_stays_as_it_is(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert dying_with_us(("engine", "--x")) == ("engine", "--x")
