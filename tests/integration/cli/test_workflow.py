"""`comfyui-agent workflow`: list, check, import."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from agent.library.library import SHIPPED, load
from comfyui.catalog import Catalog
from tests.integration.cli.conftest import ROOT, free_port
from tests.unit.library.shelf import GRAPH, write

OBJECT_INFO = ROOT / "tests/golden/library/object_info.json"
TITLE = {"title": "Mine"}


@pytest.fixture
def folder(tmp_path) -> Path:
    (made := tmp_path / "workflows").mkdir()
    return made


def said(command, *arguments: str, code: int = 0) -> str:
    done = command.run("workflow", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_list_shows_shipped_ones_and_those_of_a_folder(command, folder):
    write(folder, "mine", manifest=TITLE)
    shown = said(command, "list", "--dir", str(folder))
    assert "mine " in shown
    assert "text-to-image-sdxl  Text to image (SDXL with refiner)  [text-to-image]" in shown
    command.settings = {"AGENT_WORKFLOWS_DIR": str(folder)}
    found = {entry["name"]: entry for entry in json.loads(said(command, "list", "--json"))}
    assert found["mine"]["title"] == "Mine"
    assert found["invert"]["parameters"] == ["image"]
    assert found["invert"]["available"] is None, "nobody was asked"


def test_list_tells_what_an_engine_lacks(command):
    shown = said(command, "list", "--object-info", str(OBJECT_INFO))
    assert "missing: flux1-dev.safetensors\n" in shown
    listed = json.loads(said(command, "list", "--json", "--object-info", str(OBJECT_INFO)))
    found = {entry["name"]: (entry["available"], entry["missing"]) for entry in listed}
    assert found["invert"] == (True, [])
    assert found["text-to-image-flux"][0] is False
    assert "flux1-dev.safetensors" in found["text-to-image-flux"][1]


def test_every_shipped_workflow_fits_a_real_comfyui(command):
    """By what one said of its nodes; hardly a model file was there."""
    shown = said(command, "check", "--object-info", str(OBJECT_INFO))
    assert "wrong" not in shown
    assert shown.count(": fits") + shown.count(": lacking") == len(list(SHIPPED.glob("*.json")))
    assert "missing: model file flux1-dev.safetensors" in shown
    said(command, "check", "--object-info", str(OBJECT_INFO), "--complete", code=1)
    said(command, "check", "invert", "--object-info", str(OBJECT_INFO), "--complete")


def test_check_without_an_engine_looks_at_the_manifests_alone(command):
    assert "wrong" not in said(command, "check")


def test_check_names_what_is_wrong(command, folder):
    graph = {**GRAPH, "3": {**GRAPH["3"], "inputs": {**GRAPH["3"]["inputs"], "steps": "many"}}}
    write(folder, "bad-graph", graph, TITLE)
    write(folder, "bad-manifest", GRAPH, TITLE)
    (folder / "bad-manifest.yaml").write_text("title: [")
    options = ["--dir", str(folder), "--object-info", str(OBJECT_INFO)]
    shown = said(command, "check", "bad-graph", "bad-manifest", "nobody", *options, code=1)
    assert "bad-graph: wrong\n  node \"3\" (KSampler): steps wants INT, and is 'many'" in shown
    assert "bad-manifest: wrong\n  bad-manifest.yaml is not YAML" in shown
    assert 'nobody: wrong\n  There is no workflow "nobody"' in shown
    shown = said(command, "check", str(folder / "bad-graph.json"), *options, code=1)
    assert "steps wants INT" in shown


class Engine(BaseHTTPRequestHandler):
    """Answers /object_info to who has the key."""

    def do_GET(self) -> None:
        is_right = (self.path, self.headers["X-Api-Key"]) == ("/object_info", "the-key")
        self.send_response(200 if is_right else 401)
        self.end_headers()
        if is_right:
            self.wfile.write(OBJECT_INFO.read_bytes())

    def log_message(self, *_: object) -> None:
        """Not into the tests' output."""


def test_check_asks_a_running_engine(command):
    with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        try:
            command.settings = {"HTTP_PROXY": "http://127.0.0.1:9"}
            assert "invert: fits" in said(command, "check", "--url", url, "--api-key", "the-key")
            assert "answers 401" in said(command, "check", "--url", url, code=2)
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["check", "--url", "http://127.0.0.1:{port}"], "cannot be reached"),
        (["check", "--url", "nonsense"], "cannot be reached"),
        (["check", "--object-info", "no-such-file"], "cannot be read"),
        (["check", "--object-info", str(ROOT / "README.md")], "not JSON"),
        (["check", "--object-info", str(SHIPPED / "invert.json")], "no answer of /object_info"),
        (["check", "--url", "http://x", "--object-info", "y"], "contradict each other"),
        (["check", "--dir", "no-such-folder"], "is no folder"),
    ],
)
def test_command_that_cannot_be_carried_out_exits_with_two(command, arguments, reason):
    filled = [argument.replace("{port}", str(free_port())) for argument in arguments]
    assert reason in said(command, *filled, code=2)


def test_agent_that_passes_nothing_on_is_told_apart(command, agent_url):
    shown = command.run("workflow", "check", "invert", "--url", agent_url)
    assert (shown.returncode, "Name the ComfyUI itself" in shown.stderr) in ((2, True), (0, False))


def test_import_writes_a_manifest_that_fits(command, folder, tmp_path):
    exported = tmp_path / "my export.json"
    text = json.dumps(GRAPH, indent=4)
    exported.write_text(text)
    shown = said(
        command,
        "import",
        str(exported),
        "--name",
        "mine",
        "--dir",
        str(folder),
        "--object-info",
        str(OBJECT_INFO),
    )
    assert "mine.yaml: 8 parameters\n  prompt (text) sets 6.text\n" in shown
    assert (folder / "mine.json").read_text() == text, "the graph stays as it was exported"
    manifest = yaml.safe_load((folder / "mine.yaml").read_text())
    assert manifest["title"] == "mine"
    assert manifest["parameters"]["steps"] == {
        "title": "Sampler: steps",
        "type": "integer",
        "sets": "3.steps",
        "minimum": 1,
        "maximum": 10000,
    }
    said(command, "check", str(folder / "mine.json"), "--object-info", str(OBJECT_INFO))


def test_import_beside_the_file_replaces_nothing_unasked(command, folder):
    (folder / "mine.json").write_text(json.dumps(GRAPH))
    said(command, "import", str(folder / "mine.json"))
    before = (folder / "mine.yaml").read_text()
    (folder / "mine.yaml").write_text("title: Edited by hand")
    assert "--force replaces it" in said(command, "import", str(folder / "mine.json"), code=2)
    assert (folder / "mine.yaml").read_text() == "title: Edited by hand"
    said(command, "import", str(folder / "mine.json"), "--force")
    assert (folder / "mine.yaml").read_text() == before


def test_import_of_a_published_list_entry_takes_graph_and_panels(command, folder, tmp_path):
    panel = {"type": "number", "id": "3", "key": "steps", "title": "步数", "min": 1, "max": 40}
    (tmp_path / "entry.json").write_text(json.dumps({"title": "情侣照", "prompt": GRAPH, "params": [panel]}))
    said(command, "import", str(tmp_path / "entry.json"), "--name", "couple", "--dir", str(folder))
    assert json.loads((folder / "couple.json").read_text()) == GRAPH
    found = load(folder / "couple.json")
    assert found.manifest.title == "情侣照"
    assert list(found.manifest.parameters) == ["steps"]


@pytest.mark.parametrize(
    ("content", "code", "reason"),
    [
        ("{", 1, "is not JSON"),
        ('{"nodes": [], "links": []}', 1, "Export (API)"),
        (None, 1, "cannot be read"),
    ],
)
def test_import_of_what_is_no_export_says_so(command, tmp_path, content, code, reason):
    path = tmp_path / "graph.json"
    if content is not None:
        path.write_text(content)
    assert reason in said(command, "import", str(path), code=code)


def test_import_needs_a_plain_name(command, tmp_path):
    (tmp_path / "my export.json").write_text(json.dumps(GRAPH))
    assert "Give another with --name" in said(command, "import", str(tmp_path / "my export.json"), code=2)


def test_recorded_catalogue_knows_every_class_of_the_shipped_workflows():
    catalog = Catalog(json.loads(OBJECT_INFO.read_text()))
    for path in SHIPPED.glob("*.json"):
        assert catalog.unknown_nodes(load(path).workflow) == []
