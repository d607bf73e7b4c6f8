"""`comfyui-agent serve` and what stands around it."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket

import pytest

from agent import __version__
from agent.settings import Settings, variable
from agent.settings_help import default_text, grouped, settings_help
from tests.integration.cli.conftest import SECONDS, answers, until
from tests.ports import free_port


@pytest.fixture
def help_text(command):
    done = command.run("serve", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_help_lists_every_setting_with_default_and_description(help_text):
    flowing = " ".join(help_text.split())
    for name, field in Settings.model_fields.items():
        default = default_text(field)
        head = f"{variable(name)}={default}" if default else f"{variable(name)} (not set)"
        assert f"{head} {field.description}" in flowing, name


def test_help_has_every_setting_once():
    shown = [name for _, names in grouped() for name in names]
    assert sorted(shown) == sorted(Settings.model_fields)


def test_help_fits_80_columns_and_holds_no_codes_in_a_pipe(help_text):
    assert max(map(len, help_text.splitlines())) <= 80
    assert all(line.isprintable() and line.isascii() for line in help_text.splitlines())


def test_help_says_what_the_exit_codes_mean_and_keeps_host_and_port(help_text):
    for word in ("--host", "--port", "Exit code: 0", "embedded simulator"):
        assert word in help_text


def test_help_shows_no_secret_of_the_environment(command):
    command.settings = {"AGENT_API_KEYS": "s3cret", "REDIS_URL": "redis://:s3cret@h"}
    assert "s3cret" not in command.run("serve", "--help").stdout


def test_headings_are_emphasized_where_that_is_wanted():
    assert "<Listening:>" in settings_help(lambda heading: f"<{heading}>")


def test_help_on_a_terminal_is_the_same_but_for_bold_headings(command, help_text):
    leader, follower = pty.openpty()
    process = command.start("serve", "--help", stdout=follower, stderr=follower, stdin=follower)
    os.close(follower)
    shown = read_all(leader)
    assert process.wait(SECONDS) == 0
    assert "\x1b[1mListening:\x1b[0m" in shown
    assert re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r\n", "\n") == help_text


def read_all(descriptor: int) -> str:
    """What was written to a terminal; Linux ends it with an error instead of an end."""
    data = b""
    try:
        while chunk := os.read(descriptor, 65536):
            data += chunk
    except OSError:
        pass
    finally:
        os.close(descriptor)
    return data.decode()


def test_version_is_printed(command):
    done = command.run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"comfyui-agent {__version__}\n", "")


@pytest.mark.parametrize(
    ("settings", "arguments", "words"),
    [
        ({"AGENT_QUEUE_SIZE": "many"}, [], ["AGENT_QUEUE_SIZE", "whole number"]),
        ({"AGENT_QUEUE_SIZE": "x", "AGENT_CONCURRENCY": "0"}, [], ["AGENT_QUEUE_SIZE", "AGENT_CONCURRENCY"]),
        ({"AGENT_TYPO": "1"}, [], ["AGENT_TYPO", "serve --help"]),
        ({"AGENT_FETCH_ALLOW": "not a host"}, [], ["AGENT_FETCH_ALLOW", "not a host"]),
        ({"COMFYUI_URL": "http://x", "COMFYUI_ROOT": "/x"}, [], ["COMFYUI_URL", "COMFYUI_ROOT"]),
        ({"AGENT_PORT": "70000"}, [], ["AGENT_PORT", "65535"]),
    ],
)
def test_wrong_setting_is_one_sentence_and_exit_code_2(command, settings, arguments, words):
    command.settings = settings
    done = command.run("serve", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("comfyui-agent: ")
    assert done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words)


@pytest.mark.parametrize("arguments", [["--port", "70000"], ["--port", "http"], ["--bogus"]])
def test_wrong_option_is_exit_code_2(command, arguments):
    done = command.run("serve", *arguments)
    assert done.returncode == 2
    assert "Usage: comfyui-agent serve" in done.stderr
    assert "Traceback" not in done.stderr


def test_port_in_use_is_named_with_the_remedy(command, taken_port):
    command.settings = {"COMFYUI_PORT": str(free_port())}
    done = command.run("serve", "--host", "127.0.0.1", "--port", str(taken_port))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    for words in (f"port {taken_port} is in use on 127.0.0.1", "--port", "AGENT_PORT"):
        assert words in done.stderr
    assert not command.processes()


@pytest.mark.parametrize(
    ("settings", "host", "words"),
    [
        ({"COMFYUI_ROOT": "/nowhere"}, "127.0.0.1", "COMFYUI_ROOT is /nowhere"),
        ({"COMFYUI_URL": "http://127.0.0.1:1"}, "192.0.2.1", "192.0.2.1 is no address of this machine"),
        (
            {"COMFYUI_URL": "http://127.0.0.1:1"},
            "no.such.host.invalid",
            "cannot be opened on no.such.host.invalid",
        ),
    ],
)
def test_start_that_fails_is_one_sentence_and_exit_code_1(command, settings, host, words):
    command.settings = settings
    done = command.run("serve", "--host", host, "--port", "0")
    assert done.returncode == 1
    assert done.stderr.startswith("comfyui-agent: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_options_win_over_the_environment_and_a_signal_ends_it_with_0(command, number):
    port = free_port()
    command.settings = {"AGENT_PORT": "1", "AGENT_HOST": "192.0.2.1", "COMFYUI_URL": "http://127.0.0.1:1"}
    process = command.start("serve", "--host", "127.0.0.1", "--port", str(port))
    until(lambda: answers(port), "it listens")
    process.send_signal(number)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (0, "")
    assert f"http://127.0.0.1:{port}" in out
    assert not command.processes()


def test_service_does_not_load_what_only_other_commands_need(command):
    port = free_port()
    command.settings = {"COMFYUI_URL": "http://127.0.0.1:1", "PYTHONPROFILEIMPORTTIME": "1"}
    process = command.start("serve", "--host", "127.0.0.1", "--port", str(port))
    until(lambda: answers(port), "it listens")
    process.terminate()
    loaded = {
        line.rpartition("|")[2].strip() for line in process.communicate(timeout=SECONDS)[1].splitlines()
    }
    assert "agent.serve" in loaded
    assert not loaded & {"requests", "urllib3", "agent.client", "agent.demo", "agent.settings_help", "redis"}
