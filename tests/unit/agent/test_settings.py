"""Settings: read from the environment, and wrong ones said at once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from agent.settings import Invocation, Role, Settings, SettingsError, load_settings, read_api_keys, variable
from agent.settings_errors import allowed

SECRETS = {"AGENT_API_KEYS": "tops3cret,other-key", "REDIS_URL": "redis://:p4ssw0rd@redis:6379/0"}
#: The names that design section 8 fixes.
FIXED = [
    "AGENT_HOST",
    "AGENT_PORT",
    "AGENT_ROLE",
    "AGENT_INVOCATION",
    "AGENT_API_KEYS",
    "AGENT_FETCH_ALLOW",
    "AGENT_MAX_BODY_BYTES",
    "AGENT_QUEUE_SIZE",
    "AGENT_CONCURRENCY",
    "AGENT_TASK_TIMEOUT_SECONDS",
    "AGENT_TASK_TTL_SECONDS",
    "AGENT_LEASE_SECONDS",
    "AGENT_MAX_ATTEMPTS",
    "REDIS_URL",
    "COMFYUI_ROOT",
    "COMFYUI_PYTHON",
    "COMFYUI_ARGS",
    "COMFYUI_COMMAND",
    "COMFYUI_URL",
    "COMFYUI_PORT",
]

Load = Callable[..., Settings]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads the settings from these variables alone."""
    for name in list(os.environ):
        if name.startswith(("AGENT_", "COMFYUI_", "FC_", "REDIS_")):
            monkeypatch.delenv(name)

    def load_from(variables: dict[str, str] | None = None, **overrides: Any) -> Settings:
        for name, value in (variables or {}).items():
            monkeypatch.setenv(name, value)
        return load_settings(**overrides)

    return load_from


def test_every_name_of_the_design_exists() -> None:
    assert set(FIXED) <= {variable(name) for name in Settings.model_fields}


def test_every_setting_is_described_and_has_a_default(load: Load) -> None:
    load()
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert re.fullmatch(r"(AGENT|COMFYUI|REDIS|OTEL)_[A-Z0-9_]+", variable(name))


def test_the_defaults_are_those_of_the_design(load: Load) -> None:
    settings = load()
    assert (settings.host, settings.port, settings.comfyui_port) == ("0.0.0.0", 9000, 9001)
    assert (settings.role, settings.invocation) == (Role.ALL, Invocation.AUTO)
    assert (settings.redis_url, settings.comfyui_root, settings.comfyui_command, settings.comfyui_url) == (
        None,
    ) * 4
    assert settings.api_keys == settings.fetch_allow == settings.cors_origins == []


def test_values_come_from_the_environment(load: Load) -> None:
    settings = load(
        {
            "AGENT_PORT": "8000",
            "AGENT_ROLE": "engine",
            "AGENT_INVOCATION": "gateway",
            "AGENT_FETCH_ALLOW": "127.0.0.1, 10.1.0.0/16 ,media.internal,",
            "AGENT_LEASE_SECONDS": "2.5",
            "COMFYUI_ARGS": "--cpu --verbose",
            "COMFYUI_URL": "http://127.0.0.1:8188",
        }
    )
    assert (settings.port, settings.role, settings.invocation) == (8000, Role.ENGINE, Invocation.GATEWAY)
    assert settings.fetch_allow == ["127.0.0.1", "10.1.0.0/16", "media.internal"]
    assert (settings.lease_seconds, settings.comfyui_args) == (2.5, "--cpu --verbose")
    assert settings.comfyui_url == "http://127.0.0.1:8188"


@pytest.mark.parametrize(
    ("variables", "port"),
    [
        ({"FC_CUSTOM_LISTEN_PORT": "9500"}, 9500),
        ({"AGENT_PORT": "8000", "FC_CUSTOM_LISTEN_PORT": "9500"}, 8000),
        ({"AGENT_PORT": "0"}, 0),
        ({"AGENT_PORT": ""}, 9000),  # compose files set what is not given to nothing
        ({}, 9000),
    ],
)
def test_the_platforms_port_counts_where_ours_is_not_set(
    load: Load, variables: dict[str, str], port: int
) -> None:
    assert load(variables).port == port


def test_the_command_line_wins(load: Load) -> None:
    assert load({"AGENT_PORT": "8000", "FC_CUSTOM_LISTEN_PORT": "9500"}, port=7000).port == 7000


@pytest.mark.parametrize(
    "name", ["AGENT_PROT", "AGENT_", "AGENT_REDIS_URL", "AGENT_COMFYUI_ROOT", "AGENT_API_KEY"]
)
def test_an_unknown_name_is_an_error(load: Load, name: str) -> None:
    with pytest.raises(SettingsError, match=f"unknown setting {name}"):
        load({name: "x"})


def test_all_unknown_names_are_listed(load: Load) -> None:
    with pytest.raises(SettingsError, match="AGENT_A, AGENT_B"):
        load({"AGENT_B": "x", "AGENT_A": "y"})


@pytest.mark.parametrize("name", ["COMFYUI_OTHER", "REDIS_OTHER", "FC_OTHER", "MY_AGENT_X"])
def test_names_of_others_are_none_of_ours(load: Load, name: str) -> None:
    load({name: "x"})


def test_front_needs_a_function_and_a_store(load: Load) -> None:
    given = {"AGENT_ROLE": "front", "AGENT_ENGINE_URL": "https://gpu.example", "REDIS_URL": "redis://r"}
    assert load(given).role is Role.FRONT
    for missing in ("AGENT_ENGINE_URL", "REDIS_URL"):
        with pytest.raises(SettingsError, match=missing):
            load({**given, missing: ""})
    assert load({**given, "REDIS_URL": "", "AGENT_STORE_DIR": "/mnt/nas/tasks"}).role is Role.FRONT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AGENT_PORT", "http"),
        ("AGENT_PORT", "-1"),
        ("AGENT_PORT", "65536"),
        ("FC_CUSTOM_LISTEN_PORT", "x"),
        ("AGENT_ROLE", "boss"),
        ("AGENT_INVOCATION", "maybe"),
        ("AGENT_CONCURRENCY", "0"),
        ("AGENT_QUEUE_SIZE", "-1"),
        ("AGENT_MAX_ATTEMPTS", "0"),
        ("AGENT_MAX_BODY_BYTES", "32MB"),
        ("AGENT_MAX_BODY_BYTES", "0"),
        ("AGENT_TASK_TIMEOUT_SECONDS", "0"),
        ("AGENT_TASK_TIMEOUT_SECONDS", "nan"),
        ("AGENT_TASK_TIMEOUT_SECONDS", "inf"),
        ("AGENT_LEASE_SECONDS", "-5"),
        ("AGENT_API_KEYS", ","),
        ("AGENT_TASK_TTL_SECONDS", "1.5"),
        ("AGENT_LOG_LEVEL", "loud"),
        ("AGENT_LOG_FORMAT", "xml"),
        ("COMFYUI_PORT", "0"),
        ("COMFYUI_URL", "127.0.0.1:8188"),
        ("COMFYUI_URL", "ftp://x"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_setting(load: Load, name: str, value: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        load({name: value})
    expected = "AGENT_PORT" if name == "FC_CUSTOM_LISTEN_PORT" else name
    assert expected in str(wrong.value)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("AGENT_PORT", "http", "AGENT_PORT must be a whole number, at least 0 and at most 65535"),
        ("FC_CUSTOM_LISTEN_PORT", "x", "AGENT_PORT must be a whole number, at least 0 and at most 65535"),
        ("AGENT_PORT", "65536", "AGENT_PORT must be a whole number, at least 0 and at most 65535"),
        ("AGENT_MAX_NODES", "1.5", "AGENT_MAX_NODES must be a whole number, greater than 0"),
        ("AGENT_LEASE_SECONDS", "soon", "AGENT_LEASE_SECONDS must be a number, greater than 0"),
        ("AGENT_LEASE_SECONDS", "nan", "AGENT_LEASE_SECONDS must be a number, greater than 0"),
        ("AGENT_SHUTDOWN_SECONDS", "-1", "AGENT_SHUTDOWN_SECONDS must be a number, at least 0"),
        ("AGENT_ROLE", "boss", "AGENT_ROLE must be all, engine or front"),
        ("AGENT_LOG_LEVEL", "loud", "AGENT_LOG_LEVEL must be debug, info, warning or error"),
        ("COMFYUI_URL", "ftp://x", "COMFYUI_URL: write it as http://host:port"),
        *(
            (
                "AGENT_CORS_ORIGINS",
                f"https://a.example, {wrong}",
                f"AGENT_CORS_ORIGINS: {wrong} is no origin; write it as https://host or http://host:port, without a path",
            )
            for wrong in (
                "https://b.example/",
                "b.example",
                "https://B.example",
                "http://u@b",
                "https://b/page",
            )
        ),
        (
            "AGENT_API_KEYS",
            ",",
            "AGENT_API_KEYS: there is no key in it, and without one the API would be open",
        ),
    ],
)
def test_a_wrong_value_is_answered_with_what_is_allowed(
    load: Load, name: str, value: str, sentence: str
) -> None:
    with pytest.raises(SettingsError) as wrong:
        load({name: value})
    assert str(wrong.value) == sentence


@pytest.mark.parametrize("name", [variable(name) for name in Settings.model_fields])
@pytest.mark.parametrize("value", ["\x7f x", "-1", "1e999", "[]", "{"])
def test_no_setting_is_answered_in_the_words_of_a_library(load: Load, name: str, value: str) -> None:
    said = ""
    try:
        load({name: value})
    except SettingsError as wrong:
        said = str(wrong)
    assert not re.search(r"Input should|valid |Value error|pydantic", said)


def test_kinds_that_no_setting_has_yet_are_named_too() -> None:
    class Other(BaseModel):
        flag: bool = True
        share: float | None = Field(None, gt=0, lt=1)
        mode: Literal["one"] = "one"
        text: str = ""

    wanted = {name: allowed(field) for name, field in Other.model_fields.items()}
    assert wanted == {
        "flag": "true or false",
        "share": "a number, greater than 0 and less than 1",
        "mode": "one",
        "text": None,
    }


def test_all_wrong_values_are_told_at_once(load: Load) -> None:
    with pytest.raises(SettingsError) as wrong:
        load({"AGENT_CONCURRENCY": "0", "AGENT_QUEUE_SIZE": "x"})
    assert len(str(wrong.value).splitlines()) == 2


@pytest.mark.parametrize(
    "names",
    [
        ("COMFYUI_ROOT", "COMFYUI_URL"),
        ("COMFYUI_ROOT", "COMFYUI_COMMAND"),
        ("COMFYUI_COMMAND", "COMFYUI_URL"),
    ],
)
def test_engines_that_contradict_each_other_are_an_error(load: Load, names: tuple[str, str]) -> None:
    with pytest.raises(SettingsError, match="contradict") as wrong:
        load(dict.fromkeys(names, "http://127.0.0.1:1"))
    assert all(name in str(wrong.value) for name in names)


def test_stores_that_contradict_each_other_are_an_error(load: Load) -> None:
    with pytest.raises(SettingsError, match="REDIS_URL and AGENT_STORE_DIR contradict") as wrong:
        load({"REDIS_URL": "redis://:p4ssw0rd@host", "AGENT_STORE_DIR": "/mnt/nas/tasks"})
    assert "p4ssw0rd" not in str(wrong.value)


def test_secrets_do_not_show(load: Load) -> None:
    settings = load(SECRETS)
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    for secret in ("tops3cret", "other-key", "p4ssw0rd"):
        assert secret not in shown
    assert [key.get_secret_value() for key in settings.api_keys] == ["tops3cret", "other-key"]


def test_secrets_do_not_show_in_errors(load: Load) -> None:
    with pytest.raises(SettingsError) as wrong:
        load(SECRETS | {"REDIS_URL": "p4ssw0rd@redis", "AGENT_PORT": "x"})
    assert "p4ssw0rd" not in str(wrong.value)
    assert wrong.value.__cause__ is None
    assert "AGENT_PORT" in str(wrong.value)


def test_origins_are_those_that_browsers_send(load: Load) -> None:
    origins = [
        "https://a.example",
        "http://localhost:5173",
        "http://[::1]:80",
        "capacitor://localhost",
        "null",
        "*",
    ]
    assert load({"AGENT_CORS_ORIGINS": ",".join(origins)}).cors_origins == origins


def test_settings_cannot_be_changed(load: Load) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().port = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("invocation", "variables", "expected"),
    [
        ("auto", {}, False),
        ("auto", {"FC_FUNCTION_NAME": "f", "FC_INSTANCE_ID": "i"}, True),
        ("auto", {"FC_FUNCTION_NAME": "f"}, False),
        ("auto", {"FC_FUNCTION_NAME": "", "FC_INSTANCE_ID": "i"}, False),
        ("gateway", {}, True),
        ("standalone", {"FC_FUNCTION_NAME": "f", "FC_INSTANCE_ID": "i"}, False),
    ],
)
def test_the_platforms_variables_tell_whether_there_is_a_gateway(
    load: Load, invocation: str, variables: dict[str, str], expected: bool
) -> None:
    assert load(variables | {"AGENT_INVOCATION": invocation}).behind_gateway is expected


class TestApiKeys:
    """From the setting and from a file."""

    def read(self, load: Load, tmp_path: Path, content: str, **variables: str) -> tuple[bytes, ...]:
        file = tmp_path / "keys"
        file.write_text(content)
        return read_api_keys(load({"AGENT_API_KEYS_FILE": str(file)} | variables))

    def test_a_file_has_one_key_a_line(self, load: Load, tmp_path: Path) -> None:
        content = "# our keys\n\nfirst\n  second  \n  # indented comment\nwith#hash\n"
        assert self.read(load, tmp_path, content) == (b"first", b"second", b"with#hash")

    def test_keys_of_both_places_count(self, load: Load, tmp_path: Path) -> None:
        assert self.read(load, tmp_path, "filed\n", AGENT_API_KEYS="set, too") == (b"set", b"too", b"filed")

    @pytest.mark.parametrize("content", ["", "\n\n", "# only a comment\n", "   # only this\n"])
    def test_a_file_without_a_key_does_not_open_the_api(
        self, load: Load, tmp_path: Path, content: str
    ) -> None:
        with pytest.raises(SettingsError, match="no key in it"):
            self.read(load, tmp_path, content)

    def test_a_file_that_cannot_be_read_is_an_error(self, load: Load, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="AGENT_API_KEYS_FILE"):
            read_api_keys(load({"AGENT_API_KEYS_FILE": str(tmp_path / "nope")}))

    def test_without_any_the_api_is_open(self, load: Load) -> None:
        assert read_api_keys(load()) == ()


class TestWebhookSecrets:
    SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

    def test_several_may_sign(self, load: Load) -> None:
        settings = load({"AGENT_WEBHOOK_SECRETS": f"{self.SECRET}, {self.SECRET[:-1]}x"})
        assert [s.get_secret_value()[-2:] for s in settings.webhook_secrets] == ["Sw", "Sx"]
        assert self.SECRET not in repr(settings)

    @pytest.mark.parametrize("value", [",", " , ", "whsec_", "secret", f"{SECRET},whsec_c2hvcnQ="])
    def test_what_is_none_is_refused_and_not_shown(self, load: Load, value: str) -> None:
        with pytest.raises(SettingsError, match="AGENT_WEBHOOK_SECRETS") as wrong:
            load({"AGENT_WEBHOOK_SECRETS": value})
        assert self.SECRET[6:] not in str(wrong.value)
        assert "c2hvcnQ" not in str(wrong.value)

    def test_an_empty_value_counts_as_not_set(self, load: Load) -> None:
        assert load({"AGENT_WEBHOOK_SECRETS": ""}).webhook_secrets == []


def test_agent_and_engine_need_a_port_each(load: Load) -> None:
    with pytest.raises(SettingsError, match="AGENT_PORT and COMFYUI_PORT are the same"):
        load({"AGENT_PORT": "9001"})
    assert load({"AGENT_PORT": "9001", "COMFYUI_URL": "http://127.0.0.1:8188"}).port == 9001


def test_shutdown_behind_a_gateway_fits_into_what_the_platform_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_SHUTDOWN_SECONDS", "76")
    assert load_settings(invocation="standalone").shutdown_seconds == 76
    with pytest.raises(SettingsError, match="AGENT_SHUTDOWN_SECONDS is 76"):
        load_settings(invocation="gateway")
    monkeypatch.setenv("FC_FUNCTION_NAME", "f")
    monkeypatch.setenv("FC_INSTANCE_ID", "i")
    with pytest.raises(SettingsError, match="AGENT_SHUTDOWN_SECONDS"):
        load_settings()
