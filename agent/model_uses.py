"""Notes which models tasks use, for the disk budget of provisioning: it evicts those first that were used longest ago.

The note is a small file in the state that provisioning keeps beside the models. Where no manifest was ever provisioned
there is none, and nothing is noted. It is written off the event loop, by a thread that a disk which is away cannot
hold the agent with, and for each name at most every NOTE_SECONDS.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from agent.settings import Settings
from agent.tasks.threads import Threads
from comfyui.launch import means, split_words

if TYPE_CHECKING:
    from comfyui.catalog import Catalog
    from comfyui.workflow import Workflow

log = structlog.get_logger(__name__)

#: How old a note may grow while the model is in use.
NOTE_SECONDS = 300

#: How long a disk may take; then the note is left out, and the next task's is tried.
DISK_SECONDS = 30

#: Names that are remembered as noted, at most.
MOST_NAMES = 10_000


class ModelUses:
    """Calls may run at the same time; what goes wrong is a line in the log."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._threads = Threads(1, "model-uses")
        self._is_at_it = False
        self._roots: list[Path] = []
        self._looked_at: float | None = None
        self._noted: dict[str, float] = {}

    def close(self) -> None:
        self._threads.close()

    @property
    def is_wanted(self) -> bool:
        """False while it is known that nothing was provisioned: then there is nothing to note."""
        return bool(self._roots) or self._is_to_look()

    async def note(self, workflow: Workflow, catalog: Catalog) -> None:
        """The engine runs this workflow now. While another one is being noted this one is left out."""
        if self._is_at_it:
            return
        self._is_at_it = True
        try:
            await self._threads.run(partial(self._note, workflow, catalog), DISK_SECONDS)
        except OSError as exc:  # a TimeoutError too
            log.info("model.use_not_noted", reason=str(exc) or "the disk does not answer")
        except Exception:  # a task must not end by it
            log.exception("model.use_not_noted")
        finally:
            self._is_at_it = False

    def _is_to_look(self) -> bool:
        return self._looked_at is None or time.monotonic() - self._looked_at > NOTE_SECONDS

    # --- In the thread --------------------------------------------------------------------------------------------

    def _note(self, workflow: Workflow, catalog: Catalog) -> None:
        now = time.monotonic()
        if self._is_to_look():
            self._roots, self._looked_at = list(self._find_roots()), now
        if not self._roots:
            return
        fresh = {
            name
            for name in chosen_names(workflow, catalog)
            if now - self._noted.get(name, -NOTE_SECONDS) >= NOTE_SECONDS
        }
        if not fresh:
            return
        if len(self._noted) > MOST_NAMES:
            self._noted.clear()
        self._noted.update(dict.fromkeys(fresh, now))

        from agent.provision.store import ModelStore  # noqa: PLC0415 - few agents have what it is for

        for root in self._roots:
            store = ModelStore(root)
            for record in store.records():
                # ComfyUI names a model by its path below the folder of its kind.
                if any(f"/{record.path}".endswith(f"/{name}") for name in fresh):
                    store.note_use(record.path)

    def _find_roots(self) -> Iterator[Path]:
        """The models folders that a manifest was provisioned into."""
        from agent.provision.store import STATE_FOLDER  # noqa: PLC0415

        for root in dict.fromkeys(self._possible_roots()):
            if (root / STATE_FOLDER).is_dir():
                yield root

    def _possible_roots(self) -> Iterator[Path]:
        settings = self._settings
        if settings.provision is not None and (root := _root_of(Path(settings.provision))) is not None:
            yield root
        folder = Path(settings.comfyui_root or ".").expanduser().absolute()  # in which ComfyUI runs
        bases = [
            base for base in (settings.comfyui_root, settings.comfyui_base_directory) if base is not None
        ]
        for base in (*bases, *self._values_of("--base-directory")):
            yield folder / Path(base).expanduser() / "models"
        # The first of these files ComfyUI reads unasked.
        for file in ("extra_model_paths.yaml", *self._values_of("--extra-model-paths-config")):
            yield from _base_paths(folder / Path(file).expanduser())

    def _values_of(self, flag: str) -> Iterator[str]:
        """What COMFYUI_ARGS give a flag."""
        is_meant = False
        for word in split_words(self._settings.comfyui_args, "COMFYUI_ARGS"):
            name, equals, value = word.partition("=")
            if word.startswith("--"):
                is_meant = means(name, flag)
                if is_meant and equals:
                    yield value
            elif is_meant:
                yield word


def chosen_names(workflow: Workflow, catalog: Catalog) -> set[str]:
    """What the workflow chooses from lists of the engine: model files among them."""
    return {
        value
        for node in workflow.nodes.values()
        for name, value in node.inputs.items()
        if isinstance(value, str) and value in (catalog.choices(node.class_type, name) or ())
    }


def _root_of(manifest: Path) -> Path | None:
    from agent.provision.errors import ManifestError  # noqa: PLC0415
    from agent.provision.manifest import load_manifest  # noqa: PLC0415

    try:
        root = load_manifest(manifest).root
    except ManifestError:  # the provisioning itself says so
        return None
    return Path(root) if root is not None else None


def _base_paths(file: Path) -> Iterator[Path]:
    """The folders that a file like ComfyUI's extra_model_paths.yaml names."""
    import yaml  # noqa: PLC0415

    try:
        found: Any = yaml.safe_load(file.read_bytes())
    except (OSError, yaml.YAMLError):
        return
    for section in found.values() if isinstance(found, dict) else ():
        base = section.get("base_path") if isinstance(section, dict) else None
        if isinstance(base, str):
            yield file.parent / Path(base).expanduser()
