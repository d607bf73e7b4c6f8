"""The documents are true: their tables are those of the code, their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

from agent.errors import AgentError
from agent.settings import Settings, variable
from agent.settings_help import default_text

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


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
        default = default_text(field)
        shown = f"`{default}`" if default else ""
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


def test_links_between_documents_lead_somewhere() -> None:
    for document in [README, *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
