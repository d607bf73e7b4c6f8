"""From the settings to the parts of the service that need more than a value handed on: which store, which engine, which
folders. Nothing here connects or starts anything. What begins with `open` imports libraries that a start does without,
and is for when the part is first needed."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from agent.admission import Admission
from agent.api.render import show_task
from agent.imports import without
from agent.inputs.addresses import AllowList
from agent.inputs.buckets import BucketReader
from agent.objects import open_bucket
from agent.orphans import Orphans
from agent.provision.prelude import after_provisioning
from agent.settings import Role, Settings, SettingsError
from agent.tasks.board import TaskBoard
from agent.tasks.memory import MemoryStore
from agent.tasks.store import TaskStore
from agent.webhooks.notifier import Notifier
from agent.webhooks.sender import Sender
from agent.webhooks.signing import read_secret
from comfyui.folders import Folders, find_folders
from comfyui.launch import (
    EngineLimits,
    Launch,
    checkout_command,
    child_environment,
    listen_address,
    simulator_command,
    template_command,
)

if TYPE_CHECKING:
    from agent.api.facades.models import ModelTable
    from agent.exposition import Exposition
    from agent.inputs.fetch import Fetcher
    from agent.library.library import Library
    from agent.metrics import Metrics

log = structlog.get_logger(__name__)

#: Why files of finished tasks stay, and what would change that.
KEPT_BY_SIMULATOR = (
    "the simulator keeps its files in a temporary folder until it ends; with COMFYUI_ARGS='--base-directory DIR' they "
    "lie there, and are removed after their tasks"
)
KEPT_BY_STRANGER = (
    "the engine's folders are not known, so nothing of finished tasks is removed; COMFYUI_BASE_DIRECTORY says where "
    "they are"
)


def build_store(settings: Settings) -> TaskStore:
    """The store that the settings name. It does not connect yet. Raises SettingsError."""
    ttl_seconds, reread_seconds = settings.task_ttl_seconds, min(12, settings.lease_seconds)
    if settings.store_dir is not None:
        from agent.tasks.directory import DirectoryStore  # noqa: PLC0415 - few need it

        folder = Path(settings.store_dir).absolute()
        return DirectoryStore(folder, record_ttl_seconds=ttl_seconds, output_ttl_seconds=ttl_seconds)
    if settings.redis_url is None:
        log.info(
            "store.memory",
            note="tasks are known to this process alone; set REDIS_URL or AGENT_STORE_DIR to share them",
        )
        return MemoryStore(
            record_ttl_seconds=ttl_seconds,
            output_ttl_seconds=ttl_seconds,
            max_output_bytes=settings.memory_output_bytes,
            reread_seconds=reread_seconds,
        )
    with without():
        from agent.tasks.redis import RedisStore  # noqa: PLC0415 - costs much where it is not needed

    try:
        return RedisStore(
            settings.redis_url.get_secret_value(),
            prefix=settings.redis_prefix,
            record_ttl_seconds=ttl_seconds,
            output_ttl_seconds=ttl_seconds,
            timeout_seconds=settings.redis_timeout_seconds,
            reread_seconds=reread_seconds,
        )
    except ValueError as exc:
        raise SettingsError(str(exc)) from None


def build_notifier(settings: Settings, board: TaskBoard) -> Notifier:
    """What tells webhooks of the ends of tasks. It does not connect yet. Raises SettingsError."""
    try:
        keys = [read_secret(secret.get_secret_value()) for secret in settings.webhook_secrets]
        allow = AllowList.parse(settings.fetch_allow)
    except ValueError as exc:
        raise SettingsError(str(exc)) from None
    notifier = Notifier(
        board.store,
        Sender(keys, allow, timeout_seconds=settings.webhook_timeout_seconds),
        render=partial(show_task, board),
        default_url=settings.webhook_url.get_secret_value() if settings.webhook_url else None,
        max_attempts=settings.webhook_attempts,
        total_seconds=settings.webhook_total_seconds,
        must_wait=settings.behind_gateway,
    )
    try:
        notifier.plan(None)
    except ValueError as exc:
        raise SettingsError(f"AGENT_WEBHOOK_URL: {exc}") from None
    return notifier


def build_orphans(
    settings: Settings, board: TaskBoard, notifier: Notifier, is_ours: Callable[[str], bool]
) -> Orphans:
    """What ends tasks that nobody is left to end."""
    return Orphans(
        board,
        Admission(settings, board, uuid.uuid4().hex[:12], notifier),
        notifier,
        lease_seconds=settings.lease_seconds,
        patience_seconds=settings.webhook_total_seconds,
        must_wait=settings.behind_gateway,
        is_ours=is_ours,
    )


def plan_engine(settings: Settings) -> tuple[str, Launch | None]:
    """Where the engine is reached, and how it is launched; None for one that others run.

    Raises EngineFailedError naming the setting at fault.
    """
    if settings.comfyui_url:
        return settings.comfyui_url, None
    port, args, folder = settings.comfyui_port, settings.comfyui_args, None
    if settings.comfyui_root:
        argv = checkout_command(settings.comfyui_root, settings.comfyui_python, args, port)
        folder = Path(settings.comfyui_root)
    elif settings.comfyui_command:
        argv, args = template_command(settings.comfyui_command, port), ""
    else:
        log.warning(
            "engine.simulated", note="no COMFYUI_ROOT, COMFYUI_COMMAND or COMFYUI_URL: pictures are stand-ins"
        )
        argv = simulator_command(port, args)
    if settings.provision:
        argv = after_provisioning(settings.provision, argv)
    if shutil.which("setpriv") is None:
        log.warning(
            "engine.untied", note="no setpriv (util-linux): an agent that is killed leaves its engine behind"
        )
    address = listen_address(args, port)
    if address.moved_by:
        log.warning("engine.moved", flags=address.moved_by, url=address.url)
    return address.url, Launch(argv, folder, child_environment(os.environ))


def bucket_reader(settings: Settings) -> BucketReader:
    """Reads inputs from the buckets that the settings open. Raises SettingsError."""
    try:
        return BucketReader(
            settings.input_buckets,
            lambda scheme, bucket: open_bucket(settings, scheme, bucket),
            max_bytes=settings.max_input_bytes,
            timeout_seconds=settings.fetch_timeout_seconds,
        )
    except ValueError as exc:
        raise SettingsError(str(exc)) from None


def engine_folders(settings: Settings) -> Folders | None:
    """Where the files of tasks lie; None where that is not known."""
    root, base = settings.comfyui_root, settings.comfyui_base_directory
    if base is not None:
        folders = find_folders(Path(base), "", Path.cwd())
    elif root is not None:
        folders = find_folders(
            Path(root).expanduser().absolute(), settings.comfyui_args, Path(root).absolute()
        )
    elif settings.comfyui_command is None and settings.comfyui_url is None:
        folders = find_folders(None, settings.comfyui_args, Path.cwd())
    else:
        folders = None
    if folders is None and settings.keep_files_seconds:
        log.info("files.kept", note=KEPT_BY_SIMULATOR if settings.is_simulated else KEPT_BY_STRANGER)
    return folders


def engine_limits(settings: Settings) -> EngineLimits:
    """How patient the supervisor is. Several probes fit into the time after which a silent engine has hung."""
    hang_seconds = settings.engine_hang_seconds
    return EngineLimits(
        start_seconds=settings.engine_start_seconds,
        probe_seconds=min(5, hang_seconds / 12),
        probe_timeout_seconds=min(10, hang_seconds / 6),
        unresponsive_seconds=hang_seconds,
    )


def open_named_workflows(settings: Settings) -> Library:
    """The named workflows: those that come with the agent, and the operator's."""
    from agent.library.library import open_library  # noqa: PLC0415 - YAML and all; see LIBRARY

    return open_library(settings.workflows_dir)


def models_opener(settings: Settings) -> Callable[[], ModelTable]:
    """What opens the table of models; the operator's own file is read at once, so that he hears of what is wrong."""

    def read() -> ModelTable:
        from agent.api.facades.models import read_models  # noqa: PLC0415 - YAML; see MODELS

        return read_models(settings.models)

    opener = cache(read)
    if settings.models is not None and settings.facades:
        opener()
    return opener


def open_fetcher(settings: Settings) -> Fetcher:
    """What downloads inputs."""
    from agent.inputs.fetch import Fetcher  # noqa: PLC0415 - httpx, and the authorities of TLS: few inputs are URLs

    return Fetcher(
        AllowList.parse(settings.fetch_allow),
        max_bytes=settings.max_input_bytes,
        timeout_seconds=settings.fetch_timeout_seconds,
    )


def open_exposition(settings: Settings, metrics: Metrics) -> Exposition:
    """What shows the metrics to Prometheus."""
    from agent.exposition import Exposition  # noqa: PLC0415 - prometheus-client; see EXPOSITION

    return Exposition(metrics, is_front=settings.role is Role.FRONT)
