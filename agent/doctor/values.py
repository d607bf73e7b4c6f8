"""Checks of what the settings name beside themselves: files, keys, lists of hosts."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from agent.build import bucket_reader, build_notifier
from agent.doctor.finding import Finding, advice, ok, problem
from agent.errors import AgentError
from agent.inputs.addresses import AllowList
from agent.labels.labeller import Labeller
from agent.objects import open_object_store
from agent.settings import Settings, SettingsError, read_api_keys
from agent.tasks.board import TaskBoard
from agent.tasks.memory import MemoryStore
from agent.warm_up import read_warm_up

#: A shorter key can be guessed by whoever may try it quickly.
SHORTEST_KEY = 16

#: How long a collector may take to accept a connection.
CONNECT_SECONDS = 5

#: A network of so many addresses opens more than anybody's media servers.
WIDEST_NETWORK = 2**24


def check_settings(settings: Settings) -> list[Finding]:
    """What the start of the service reads beside the environment, as it reads it."""
    board = TaskBoard(
        MemoryStore(record_ttl_seconds=1, output_ttl_seconds=1, max_output_bytes=1, reread_seconds=1),
    )
    steps: list[Callable[[], object]] = [
        lambda: read_api_keys(settings),
        lambda: read_warm_up(settings),
        lambda: _read_models(settings),
        lambda: open_object_store(settings),
        lambda: bucket_reader(settings),
        lambda: build_notifier(settings, board),
        lambda: Labeller(settings),
    ]
    found = []
    for step in steps:
        try:
            step()
        except SettingsError as exc:
            found.append(problem("settings", str(exc), "Correct the setting: the service will not start."))
    return found or [ok("settings", "They can be read, and do not contradict each other.")]


def _read_models(settings: Settings) -> None:
    if settings.models is not None and settings.facades:
        from agent.api.facades.models import read_models  # noqa: PLC0415 - YAML, for those who have such a file

        read_models(settings.models)


def check_keys(settings: Settings) -> list[Finding]:
    """Who may call."""
    with suppress(SettingsError):  # named by check_settings
        keys = read_api_keys(settings)
        if not keys and settings.behind_gateway:
            return [ok("api keys", "None: the platform in front decides who may call.")]
        if not keys:
            text = "None: whoever reaches the port can run workflows."
            return [
                advice("api keys", text, "Set AGENT_API_KEYS, unless something in front checks its callers.")
            ]
        if any(len(key) < SHORTEST_KEY for key in keys):
            text = f"One of them has fewer than {SHORTEST_KEY} characters, and could be guessed."
            return [advice("api keys", text, "Make one with `openssl rand -hex 32`.")]
        return [ok("api keys", f"{len(keys)} open the API.")]
    return []


def check_webhooks(settings: Settings) -> list[Finding]:
    """Whether receivers can tell our messages from others'."""
    if settings.webhook_secrets:
        return [ok("webhooks", "They are signed.")]
    if settings.webhook_url is None:
        return [
            ok(
                "webhooks",
                "AGENT_WEBHOOK_URL is not set: only requests name receivers, and nothing is signed.",
            )
        ]
    remedy = "Set AGENT_WEBHOOK_SECRETS: `echo whsec_$(openssl rand -base64 32)` makes one."
    return [advice("webhooks", "They are not signed: a receiver cannot tell them from forged ones.", remedy)]


async def check_traces(settings: Settings) -> list[Finding]:
    """Whether spans can go where they shall."""
    if settings.traces_endpoint is None:
        return []
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        text = "OTEL_EXPORTER_OTLP_ENDPOINT is set, but what sends spans is not installed."
        return [advice("traces", text, "pip install 'comfyui-agent[otel]', or unset it.")]
    address = urlsplit(settings.traces_endpoint)
    host, port = str(address.hostname), address.port or (443 if address.scheme == "https" else 80)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        text = f"The collector at {host}:{port} takes no connections: spans are lost."
        return [advice("traces", text, "Start it, or correct OTEL_EXPORTER_OTLP_ENDPOINT.")]
    writer.close()
    return [ok("traces", f"The collector at {host}:{port} takes connections.")]


def check_fetch_guard(settings: Settings) -> list[Finding]:
    """Which private addresses the URLs of inputs may reach."""
    try:
        AllowList.parse(settings.fetch_allow)
    except ValueError as exc:
        remedy = "Correct the setting: the service will not start."
        return [problem("fetch guard", str(exc), remedy)]
    wide = [entry for entry in settings.fetch_allow if _is_wide(entry)]
    if wide:
        text = f"AGENT_FETCH_ALLOW opens {', '.join(wide)} to every caller's input URLs."
        return [advice("fetch guard", text, "Name only the hosts or networks that hold inputs.")]
    opened = f", and {', '.join(settings.fetch_allow)}" if settings.fetch_allow else ""
    return [ok("fetch guard", f"Input URLs reach the public internet{opened}.")]


def check_files(settings: Settings) -> list[Finding]:
    """Folders and files that settings name."""
    found = []
    folder = settings.workflows_dir
    if folder is not None and not Path(folder).is_dir():
        text = f"AGENT_WORKFLOWS_DIR is {folder}, which is no folder: its workflows are missing."
        found.append(problem("workflows", text, "Mount it, or correct the setting."))
    if settings.provision is not None:
        from agent.provision.errors import ManifestError  # noqa: PLC0415 - YAML, which few need
        from agent.provision.manifest import load_manifest  # noqa: PLC0415

        try:
            load_manifest(Path(settings.provision))
        except ManifestError as exc:
            text = f"AGENT_PROVISION: {exc.args[0]}"
            found.append(problem("provisioning", text, "Correct the manifest: the engine will not start."))
    return found


def check_models(settings: Settings) -> list[Finding]:
    """Whether the workflows exist that the operator's table of models names, with the parameters that it sets."""
    if settings.models is None:
        return []
    from agent.api.facades.models import read_models  # noqa: PLC0415 - YAML, which few need
    from agent.library.library import open_library  # noqa: PLC0415

    try:
        table = read_models(settings.models)
    except SettingsError:
        return []  # named by check_settings
    library, found = open_library(settings.workflows_dir), []
    for name, model in table.lines.items():
        known: set[str] = set()
        for workflow in model.workflows:
            try:
                known |= library.get(workflow).manifest.parameters.keys()
            except AgentError as error:
                text = f'AGENT_MODELS: model "{name}": {error.detail}'
                found.append(problem("models", text, "Correct the file: calls of this model fail."))
        if model.workflows and (unknown := sorted(model.values.keys() - known)):
            text = f'AGENT_MODELS: model "{name}": its workflows have no parameter {", ".join(unknown)}.'
            found.append(problem("models", text, "Correct the file: calls of this model fail."))
    return found or [ok("models", f"The {len(table.lines)} lines of AGENT_MODELS lead to workflows.")]


def _is_wide(entry: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_network(entry.strip()).num_addresses > WIDEST_NETWORK
    return False
