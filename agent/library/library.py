"""The folders of named workflows: `NAME.json`, its manifest `NAME.yaml`, and perhaps a picture `NAME.webp`.

Everything here reads files: call it in a thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import yaml
from pydantic import ValidationError
from pydantic_core import from_json

import workflows
from agent.errors import InvalidManifest, WorkflowNotFound
from agent.library.importer import first_manifest
from agent.library.manifest import NAME, Manifest
from agent.library.values import check_value
from comfyui.errors import InvalidWorkflowError
from comfyui.workflow import Workflow

log = structlog.get_logger(__name__)

SHIPPED = Path(workflows.__file__).parent

#: A workflow or a manifest is text written by people; nothing real comes near this.
LARGEST_BYTES = 4 * 2**20

#: Pictures that may stand beside a workflow.
PICTURES = ("webp", "png", "jpg")


@dataclass(frozen=True, slots=True)
class NamedWorkflow:
    """A workflow with its name and its manifest."""

    name: str
    manifest: Manifest
    workflow: Workflow = field(repr=False)
    picture: Path | None = None

    def default(self, parameter_name: str) -> Any:
        """What a parameter is when a caller does not set it; None for a file that he has to send."""
        parameter = self.manifest.parameters[parameter_name]
        if parameter.default is not None or parameter.type.is_file:
            return parameter.default
        place = parameter.places[0]
        return self.workflow.nodes[place.node].inputs.get(place.input)


def open_library(folder: str | None) -> Library:
    """The shipped workflows, and those of the operator's folder, which win over them."""
    return Library([SHIPPED, *([Path(folder)] if folder else [])])


class Library:
    """Folders, of which a later one wins over an earlier one where both have the same name. Files are read again when
    they have changed."""

    def __init__(self, folders: Sequence[Path] = (SHIPPED,)) -> None:
        self._folders = folders
        self._read: dict[Path, tuple[tuple[int, ...], NamedWorkflow]] = {}

    def all(self) -> list[NamedWorkflow]:
        """Every workflow by name. One whose manifest is wrong is left out, with a line in the log."""
        found = []
        for name in self.names():
            try:
                found.append(self.get(name))
            except InvalidManifest as error:
                log.warning("workflow.invalid", name=name, reason=error.detail)
            except WorkflowNotFound:
                continue  # it was taken away in between
        return found

    def names(self) -> list[str]:
        """The names of all workflows, also of those that are wrong."""
        return sorted({name for folder in self._folders for name in _names(folder)})

    def get(self, name: str) -> NamedWorkflow:
        """Raises WorkflowNotFound, InvalidManifest."""
        if NAME.fullmatch(name):
            for folder in reversed(self._folders):
                path = folder / f"{name}.json"
                if path.is_file():
                    return self._load(path)
        raise WorkflowNotFound(f'There is no workflow "{name[:64]}". GET /api/workflows lists them all.')

    def _load(self, path: Path) -> NamedWorkflow:
        version = _version(path)
        known = self._read.get(path)
        if known is None or known[0] != version:
            known = version, load(path)
            self._read[path] = known
        return known[1]


def load(path: Path) -> NamedWorkflow:
    """Read `NAME.json` and what stands beside it; without a manifest, one is made from the graph.

    Raises InvalidManifest, which says what is wrong and where.
    """
    workflow, beside = read_graph(path)
    source = path.with_suffix(".yaml")
    manifest = read_manifest(source) if source.is_file() else first_manifest(workflow, path.stem, beside)
    picture = next((p for p in (path.with_suffix(f".{kind}") for kind in PICTURES) if p.is_file()), None)
    named = NamedWorkflow(path.stem, manifest, workflow, picture)
    for parameter_name, parameter in manifest.parameters.items():
        for place in parameter.places:
            node = workflow.nodes.get(place.node)
            if node is None:
                raise InvalidManifest(
                    f'{source.name}: "{parameter_name}" sets {place}, and there is no node "{place.node}".'
                )
        if (default := named.default(parameter_name)) is not None:
            try:
                check_value(parameter, default)
            except ValueError as exc:
                raise InvalidManifest(f'{source.name}: the default of "{parameter_name}": {exc}.') from None
    for node_id in manifest.outputs:
        if node_id not in workflow.nodes:
            raise InvalidManifest(f'{source.name}: "outputs" names node "{node_id}", which does not exist.')
    return named


def read_graph(path: Path) -> tuple[Workflow, dict[str, Any]]:
    """The graph of a file, and what stands beside it if it is an envelope `{"prompt": graph, ...}`.

    Raises InvalidManifest.
    """
    try:
        data = from_json(_read(path), allow_inf_nan=False)
    except ValueError as exc:
        raise InvalidManifest(f"{path.name} is not JSON: {exc}.") from None
    beside: dict[str, Any] = {}
    if isinstance(data, dict) and isinstance(data.get("prompt"), dict) and "class_type" not in data["prompt"]:
        beside = {key: value for key, value in data.items() if key != "prompt"}
        data = data["prompt"]
    try:
        return Workflow.parse(data), beside
    except InvalidWorkflowError as exc:
        raise InvalidManifest(f"{path.name}: {exc}") from None


def read_manifest(path: Path) -> Manifest:
    """Raises InvalidManifest."""
    try:
        data = yaml.safe_load(_read(path))
    except (yaml.YAMLError, ValueError) as exc:
        raise InvalidManifest(f"{path.name} is not YAML: {' '.join(str(exc).split())}.") from None
    try:
        return Manifest.model_validate(data)
    except ValidationError as exc:
        raise InvalidManifest(f"{path.name}: {_say(exc)}") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except OSError as exc:
        raise InvalidManifest(f"{path.name} cannot be read: {exc.strerror or exc}.") from None
    if len(data) > LARGEST_BYTES:
        raise InvalidManifest(f"{path.name} is larger than {LARGEST_BYTES} bytes.")
    return data


def _say(exc: ValidationError) -> str:
    found = exc.errors(include_url=False)[0]
    # A union reports each of its members; their type names are no part of the place.
    where = ".".join(str(part) for part in found["loc"] if not str(part).endswith("]"))
    reason = "unknown word" if found["type"] == "extra_forbidden" else str(found["msg"])
    return f"{where}: {reason.removeprefix('Value error, ')}." if where else f"{reason}."


def _names(folder: Path) -> Iterator[str]:
    try:
        found = list(folder.iterdir())
    except OSError as exc:
        log.warning("workflows.unreadable", folder=str(folder), reason=exc.strerror)
        return
    for path in found:
        if path.suffix == ".json" and NAME.fullmatch(path.stem):
            yield path.stem


def _version(path: Path) -> tuple[int, ...]:
    """Changes whenever one of the files that belong to a workflow does."""
    version: list[int] = []
    for suffix in (".json", ".yaml", *(f".{kind}" for kind in PICTURES)):
        try:
            stat = path.with_suffix(suffix).stat()
            version += (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            version.append(0)
    return tuple(version)
