"""The documents are true: their commands run, their tables are those of the code."""

from __future__ import annotations

import base64
import os
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from agent.errors import AgentError
from agent.settings import Settings, variable
from agent.webhooks.signing import message_headers, read_secret
from tests.e2e.blocks import BLOCK, blocks_of
from tests.ports import free_port, wait_until_ready

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
OWN_VARIABLES = ("AGENT_", "COMFYUI_", "REDIS_URL", "FC_")


@pytest.fixture
def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}


@pytest.mark.timeout(90)
def test_readme_commands_work_as_a_newcomer_types_them(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    port = free_port()
    environment = clean_environment | {
        "AGENT_PORT": str(port),
        "COMFYUI_PORT": str(free_port()),
        "COMFYUI_AGENT_URL": f"http://127.0.0.1:{port}",
    }
    (tmp_path / "workflows").symlink_to(ROOT / "workflows")
    make, start, *calls = blocks_of(README, "bash")
    assert re.findall(r"^make (\w+)", make, re.MULTILINE) == ["demo", "test"]
    for target in ("demo", "test"):
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True, timeout=10)

    bin_folder = f"{Path(sys.executable).parent}/"
    argv = start.replace(".venv/bin/", bin_folder).split()
    with subprocess.Popen(argv, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as service:
        try:
            wait_until_ready(f"http://127.0.0.1:{port}")
            for call in calls:
                script = call.replace("localhost:9000", f"127.0.0.1:{port}").replace(".venv/bin/", bin_folder)
                subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", script],
                    cwd=tmp_path,
                    env=environment,
                    check=True,
                    timeout=60,
                    capture_output=True,
                )
            for code in blocks_of(README, "python"):
                argv = [sys.executable, "-c", code.replace("localhost:9000", f"127.0.0.1:{port}")]
                ran = subprocess.run(
                    argv, cwd=tmp_path, check=True, timeout=60, capture_output=True, text=True
                )
                assert ran.stdout == "(512, 512)\n"
        finally:
            service.terminate()
            service.wait(timeout=15)
    assert (tmp_path / "answer.json").read_text().count('"results"') == 1
    assert len({picture.read_bytes() for picture in (tmp_path / "pictures").iterdir()}) == 4
    for name in ("fox.png", "picture.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.timeout(180)
def test_blocks_of_the_client_page_work_one_after_the_other(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    port, bin_folder = free_port(), Path(sys.executable).parent
    url = f"http://127.0.0.1:{port}"
    environment = clean_environment | {
        "AGENT_PORT": str(port),
        "COMFYUI_PORT": str(free_port()),
        "COMFYUI_AGENT_URL": url,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
    }
    (tmp_path / "workflows").symlink_to(ROOT / "workflows")
    Image.new("RGB", (64, 48), (200, 120, 40)).save(tmp_path / "cat.png")
    said = []
    with subprocess.Popen(
        [bin_folder / "comfyui-agent", "serve"], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
    ) as service:
        try:
            wait_until_ready(url)
            for language, _, text in BLOCK.findall((ROOT / "docs/client.md").read_text()):
                code = text.replace("http://localhost:9000", url)
                how = {
                    "bash": ["bash", "-euo", "pipefail", "-c"],
                    "python": [sys.executable, "-W", "error", "-c"],
                }
                argv = [*how[language], code]
                ran = subprocess.run(
                    argv,
                    cwd=tmp_path,
                    env=environment,
                    timeout=90,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
                said.append(ran.stdout)
        finally:
            service.terminate()
            service.wait(timeout=15)
    assert said[-1].endswith("4\ncancelled\n")
    assert len(list((tmp_path / "foxes").glob("*.png"))) == 6
    with Image.open(tmp_path / "postcard.png") as picture:
        assert picture.size == (720, 480)


def test_client_page_has_every_option_of_run() -> None:
    from typer.main import get_command  # noqa: PLC0415

    from agent.cli import app  # noqa: PLC0415

    page = (ROOT / "docs/client.md").read_text()
    shown = re.findall(r"^\| `(--[\w-]+)", page, re.MULTILINE)
    (run,) = [command for name, command in get_command(app).commands.items() if name == "run"]
    assert sorted(shown) == sorted(
        next(o for o in p.opts if o.startswith("--")) for p in run.params if p.opts[0].startswith("-")
    )


def test_settings_page_lists_each_setting_with_its_default_and_description() -> None:
    page = (ROOT / "docs/settings.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", page, re.MULTILINE))
    assert list(rows) == [variable(name) for name in Settings.model_fields]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "" if default in (None, [], "") else f"`{default}`"
        assert rows[variable(name)].strip() == f"{shown} | {field.description}".strip()


def test_api_page_lists_each_error_with_its_status() -> None:
    page = (ROOT / "docs/api.md").read_text()
    rows = dict(re.findall(r"^\| `([A-Z]\w+)` \| (.*) \|$", page, re.MULTILINE))
    expected = {
        code: f"{kind.status} | {'yes' if kind.transient else ''} | {kind().detail}"
        for code, kind in AgentError.by_code.items()
        if kind.__module__ == AgentError.__module__
    }
    assert rows == expected


def test_receivers_in_the_api_page_can_verify_our_webhooks() -> None:
    (code,) = blocks_of(ROOT / "docs/api.md", "python")
    names: dict[str, Any] = {}
    exec(code, names)
    secret, other = (f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}" for _ in range(2))
    body, now = b'{"type":"task.succeeded"}', int(time.time())
    headers = message_headers([read_secret(other), read_secret(secret)], "msg_1", now, body)
    names["verify"](secret, headers, body)
    old = message_headers([read_secret(secret)], "msg_1", now - 301, body)
    unsigned = message_headers([], "msg_1", now, body)
    for wrong, text in [
        (headers, body + b" "),
        (old, body),
        (unsigned, body),
        ({**headers, "webhook-id": "x"}, body),
    ]:
        with pytest.raises(ValueError, match=r"ago|signed"):
            names["verify"](secret, wrong, text)


def test_links_between_documents_lead_somewhere() -> None:
    for document in [README, *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
