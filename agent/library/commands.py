"""`comfyui-agent workflow ...`: look after the files of named workflows. Every command imports what it needs itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn
from urllib.parse import urlsplit

import typer

if TYPE_CHECKING:
    from agent.library.library import Library, NamedWorkflow
    from comfyui.catalog import Catalog

WRONG_USE = 2

ENGINE_SECONDS = 60

LOOPBACK = ("localhost", "127.0.0.1", "::1")

app = typer.Typer(
    help="List and check named workflows, and make new ones.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Folder = Annotated[
    str | None,
    typer.Option(
        "--dir",
        help="A folder of workflows beside the shipped ones. Default: AGENT_WORKFLOWS_DIR.",
        metavar="DIR",
    ),
]
EngineUrl = Annotated[
    str | None,
    typer.Option(
        "--url", help="A ComfyUI, or an agent that passes /object_info on: what it has is compared."
    ),
]
ObjectInfo = Annotated[
    str | None,
    typer.Option(help="The same from a file: what GET /object_info answered.", metavar="FILE"),
]
ApiKey = Annotated[str | None, typer.Option(help="Sent with --url as X-Api-Key.")]


@app.command("list")
def list_workflows(
    folder: Folder = None,
    url: EngineUrl = None,
    object_info: ObjectInfo = None,
    api_key: ApiKey = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List the named workflows of this machine. With --url or --object-info also what an engine lacks for each."""
    from pydantic_core import to_json  # noqa: PLC0415

    from agent.library.check import missing  # noqa: PLC0415
    from agent.library.manifest import english  # noqa: PLC0415

    found, catalog = _open(folder).all(), _catalog(url, object_info, api_key)
    lacking = {named.name: missing(named, catalog) if catalog else [] for named in found}
    if as_json:
        data = [
            {
                "name": named.name,
                "title": named.manifest.title,
                "tags": named.manifest.tags,
                "parameters": list(named.manifest.parameters),
                "available": not lacking[named.name] if catalog else None,
                "missing": lacking[named.name],
            }
            for named in found
        ]
        typer.echo(to_json(data, indent=2))
        return
    width = max((len(named.name) for named in found), default=0)
    for named in found:
        tags = f"  [{', '.join(named.manifest.tags)}]" if named.manifest.tags else ""
        typer.echo(f"{named.name:{width}}  {english(named.manifest.title)}{tags}")
        for text in lacking[named.name]:
            typer.echo(f"{'':{width}}  missing: {text}")


@app.command()
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names, or paths of NAME.json. Default: all.", metavar="[NAME|FILE]..."),
    ] = None,
    folder: Folder = None,
    url: EngineUrl = None,
    object_info: ObjectInfo = None,
    api_key: ApiKey = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Fail also where the engine lacks a node class or a model.")
    ] = False,
) -> None:
    """Check manifests against their graphs. With --url or --object-info both are checked against an engine.

    Exit code: 0 if nothing is wrong, 1 if something is, 2 if the command cannot be carried out. What the engine
    lacks is said, and is no fault without --complete.
    """
    from agent.errors import AgentError  # noqa: PLC0415
    from agent.library.check import check as findings_of  # noqa: PLC0415

    library, catalog = _open(folder), _catalog(url, object_info, api_key)
    is_well = True
    for name in names or library.names():
        try:
            named = _find(library, name)
        except AgentError as error:
            typer.echo(f"{name}: wrong\n  {error.detail}")
            is_well = False
            continue
        findings = findings_of(named, catalog) if catalog else []
        wrong = [found.text for found in findings if not found.is_missing]
        lacking = [found.text for found in findings if found.is_missing]
        typer.echo(f"{named.name}: {'wrong' if wrong else 'lacking' if lacking else 'fits'}")
        for text in wrong:
            typer.echo(f"  {text}")
        for text in lacking:
            typer.echo(f"  missing: {text}")
        is_well = is_well and not wrong and not (complete and lacking)
    raise typer.Exit(0 if is_well else 1)


@app.command("import")
def import_workflow(
    file: Annotated[str, typer.Argument(help='A graph from "Workflow > Export (API)".', metavar="FILE")],
    name: Annotated[str | None, typer.Option(help="The workflow's name. Default: the file's.")] = None,
    folder: Annotated[
        str | None,
        typer.Option("--dir", help="Where to put it. Default: the file's own folder.", metavar="DIR"),
    ] = None,
    url: EngineUrl = None,
    object_info: ObjectInfo = None,
    api_key: ApiKey = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a manifest that is there.")] = False,
) -> None:
    """Make a first manifest for an exported graph. NAME.json and NAME.yaml are written. Look it over before others use
    it.

    Panels in the graph (`_meta.edit`) become its parameters; without any, what people usually set does. With --url or
    --object-info the limits are those of the engine, and files are found on custom nodes too.
    """
    from pydantic_core import to_json  # noqa: PLC0415

    from agent.errors import AgentError  # noqa: PLC0415
    from agent.library.importer import first_manifest  # noqa: PLC0415
    from agent.library.library import read_graph  # noqa: PLC0415
    from agent.library.manifest import NAME, to_yaml  # noqa: PLC0415

    source = Path(file)
    name = name or source.stem
    target = (Path(folder) if folder else source.parent) / f"{name}.json"
    manifest_path = target.with_suffix(".yaml")
    if not NAME.fullmatch(name):
        _stop(f'"{name}" is no name of a workflow: letters, digits, - and _ only. Give another with --name.')
    if manifest_path.exists() and not force:
        _stop(f"{manifest_path} is there already: --force replaces it.")
    try:
        workflow, beside = read_graph(source)
        manifest = first_manifest(workflow, name, beside, _catalog(url, object_info, api_key))
    except AgentError as error:
        _stop(error.detail, 1)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.resolve() != source.resolve():
            data = source.read_bytes() if not beside else to_json(workflow.graph, indent=2) + b"\n"
            target.write_bytes(data)
        manifest_path.write_text(to_yaml(manifest), encoding="utf-8")
    except OSError as exc:
        _stop(f"{exc.filename} cannot be written: {exc.strerror}.", 1)
    typer.echo(f"{manifest_path}: {len(manifest.parameters)} parameters")
    for parameter_name, parameter in manifest.parameters.items():
        typer.echo(f"  {parameter_name} ({parameter.type}) sets {', '.join(parameter.sets)}")


def _open(folder: str | None) -> Library:
    from agent.library.library import SHIPPED, Library  # noqa: PLC0415

    own = folder or os.environ.get("AGENT_WORKFLOWS_DIR")
    if own and not Path(own).is_dir():
        _stop(f"{own} is no folder.")
    return Library([SHIPPED, *([Path(own)] if own else [])])


def _find(library: Library, name: str) -> NamedWorkflow:
    from agent.library.library import load  # noqa: PLC0415

    return load(Path(name)) if name.endswith(".json") else library.get(name)


def _catalog(url: str | None, file: str | None, api_key: str | None) -> Catalog | None:
    """What the engine has; None where nobody named one."""
    from pydantic_core import from_json  # noqa: PLC0415

    from comfyui.catalog import Catalog  # noqa: PLC0415

    if url and file:
        _stop("--url and --object-info contradict each other: give one of them.")
    if not url and not file:
        return None
    try:
        found = from_json(_fetch(url, api_key) if url else Path(str(file)).read_bytes())
    except OSError as exc:
        _stop(f"{file} cannot be read: {exc.strerror or exc}.")
    except ValueError:
        _stop(f"{url or file}: that is not JSON, so no answer of /object_info.")
    if not isinstance(found, dict) or not all(
        isinstance(entry, dict) and "input" in entry for entry in found.values()
    ):
        _stop(f"{url or file}: that is no answer of /object_info.")
    return Catalog(found)


def _fetch(url: str, api_key: str | None) -> bytes:
    import requests  # noqa: PLC0415

    headers = {"X-Api-Key": api_key} if api_key else {}
    with requests.Session() as session:
        try:
            # A ComfyUI on this machine is not behind the proxy that HTTP_PROXY names.
            session.trust_env = urlsplit(url).hostname not in LOOPBACK
            answer = session.get(f"{url.rstrip('/')}/object_info", headers=headers, timeout=ENGINE_SECONDS)
        except (requests.RequestException, ValueError) as exc:
            _stop(f"{url} cannot be reached ({type(exc).__name__}).")
    if answer.status_code != 200:
        _stop(
            f"{url}/object_info answers {answer.status_code}. Name the ComfyUI itself, or save what it answers and "
            "give that with --object-info."
        )
    return answer.content


def _stop(sentence: str, code: int = WRONG_USE) -> NoReturn:
    typer.echo(f"comfyui-agent: {sentence}", err=True)
    raise typer.Exit(code) from None
