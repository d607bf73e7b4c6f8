"""The command `comfyui-agent`. Each command imports what it needs itself: the service must start quickly."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from agent import __version__
from agent.commands.check_images import check_images
from agent.commands.forward import forward
from agent.commands.run import run
from agent.commands.tasks import cancel, outputs, status
from agent.library.commands import app as workflow_commands

if TYPE_CHECKING:
    from agent.settings import Settings

#: A command line or a setting that makes no sense: the same call cannot succeed. Anything else that fails is 1.
WRONG_USE = 2

app = typer.Typer(
    help="Runs ComfyUI workflows behind one HTTP interface.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help reads the same on a terminal, in a pipe and in a log
    pretty_exceptions_enable=False,
)


class ServeCommand(TyperCommand):
    """Ends its help with the settings, without loading them for anything else."""

    def get_help(self, ctx: Any) -> str:
        from agent.settings_help import settings_help  # noqa: PLC0415

        return f"{super().get_help(ctx)}\n\n{settings_help(_bold)}"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"comfyui-agent {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Runs ComfyUI workflows behind one HTTP interface."""


@app.command(cls=ServeCommand)
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; overrides AGENT_HOST.")] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port to listen on; overrides AGENT_PORT.", metavar="PORT"),
    ] = None,
    role: Annotated[
        str | None, typer.Option(help="all, engine or front; overrides AGENT_ROLE.", metavar="ROLE")
    ] = None,
) -> None:
    """Start the service: open the port, then start the engine. A front has none: it passes tasks on to one."""
    import asyncio  # noqa: PLC0415
    import gc  # noqa: PLC0415

    gc.disable()  # what is loaded now stays: to look through it again and again finds nothing
    from agent.allocator import share_heap  # noqa: PLC0415
    from agent.imports import without  # noqa: PLC0415
    from agent.settings import SettingsError  # noqa: PLC0415
    from comfyui.errors import EngineFailedError  # noqa: PLC0415

    with without():
        from agent.logs import configure_logs  # noqa: PLC0415
        from agent.serve import serve as run_service  # noqa: PLC0415
    gc.enable()
    gc.freeze()
    share_heap()

    settings = _load_settings(host=host, port=port, role=role)
    configure_logs(settings.log_format, settings.log_level)
    try:
        asyncio.run(run_service(settings))
    except SettingsError as exc:
        _stop(str(exc), WRONG_USE)
    except EngineFailedError as exc:
        _stop(str(exc))
    except OSError as exc:
        _stop(_say_os_error(exc, settings))


@app.command()
def demo(
    out: Annotated[str, typer.Option(help="Folder for the pictures.", metavar="DIR")] = "demo-output",
    pace: Annotated[
        float, typer.Option(min=0, max=3, help="Length of the simulator's pauses; 0 is as fast as it can.")
    ] = 1,
) -> None:
    """Run three workflows on the embedded simulator. A fresh agent takes them, and the pictures are written here."""
    from agent.demo import run_demo  # noqa: PLC0415

    raise typer.Exit(run_demo(out, pace))


@app.command()
def provision(
    manifest: Annotated[str, typer.Argument(help="YAML file; deploy/models.yaml shows what it may hold.")],
    models: Annotated[
        str | None,
        typer.Option(
            help="Models folder. Default: the manifest's root, else COMFYUI_ROOT/models.", metavar="DIR"
        ),
    ] = None,
    comfyui: Annotated[
        str | None,
        typer.Option(help="ComfyUI's folder, for custom nodes. Default: COMFYUI_ROOT.", metavar="DIR"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done; nothing is changed or downloaded.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every model again and compare its SHA-256.")
    ] = False,
) -> None:
    """Put the models and custom nodes of a manifest in place. What is there already is left alone.

    Exit code: 0 if everything is in place, 1 if something could not be put there, 2 if the manifest is wrong.
    """
    from pathlib import Path  # noqa: PLC0415

    from agent.provision.display import display_for_terminal  # noqa: PLC0415
    from agent.provision.errors import ManifestError  # noqa: PLC0415
    from agent.provision.manifest import load_manifest  # noqa: PLC0415
    from agent.provision.run import Wanted, run_until_stopped  # noqa: PLC0415

    try:
        wanted = load_manifest(Path(manifest))
    except ManifestError as exc:
        for sentence in exc.args[:-1]:
            typer.echo(f"comfyui-agent: {sentence}", err=True)
        _stop(exc.args[-1], WRONG_USE)
    engine = comfyui or os.environ.get("COMFYUI_ROOT") or None
    folder = models or wanted.root or (engine and os.path.join(engine, "models"))  # noqa: PTH118
    if wanted.custom_nodes and not engine:
        _stop(f"{manifest}: custom_nodes needs ComfyUI's folder: --comfyui or COMFYUI_ROOT.", WRONG_USE)
    if not folder:
        _stop(f"{manifest}: nothing names the models folder: --models, `root` or COMFYUI_ROOT.", WRONG_USE)
    what = Wanted(wanted, Path(folder), Path(engine) if engine else None, os.environ, dry_run, verify)
    try:
        all_well = run_until_stopped(what, display_for_terminal())
    except OSError as exc:
        _stop(f"{exc.filename or folder} cannot be used: {exc.strerror or exc}.")
    if all_well is None:
        _stop("stopped; the next run goes on where this one ended.")
    raise typer.Exit(0 if all_well else 1)


@app.command()
def doctor(
    write: Annotated[
        bool, typer.Option("--write", help="Also put an object into the object store, and remove it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Look for what keeps this machine from running tasks. Each thing is told with what to do about it.

    Exit code: 0 if nothing does, 1 if something does, 2 if a setting is wrong.
    """
    from agent.doctor.command import run_doctor  # noqa: PLC0415

    raise typer.Exit(run_doctor(typer.echo, write=write, as_json=as_json))


@app.command()
def check_prompts(
    file: Annotated[
        str, typer.Argument(help="Prompts, one a line; - reads them from the standard input.")
    ] = "-",
    terms: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated files or folders of banned terms. Default: AGENT_SAFETY_TERMS, else examples.",
            metavar="FILES",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a JSON object a line.")] = False,
) -> None:
    """Say of each prompt whether the banned terms refuse it. "safe" or "unsafe" and a tab may stand before a prompt;
    then precision and recall are told as well.

    Exit code: 0 if each verdict is as labelled (without a label: passed), 1 if one is not, 2 if a file cannot be read.
    """
    from agent.safety.prompts.check_command import run_check  # noqa: PLC0415
    from agent.safety.prompts.terms import TermsError  # noqa: PLC0415
    from agent.settings_types import split_words  # noqa: PLC0415

    wanted = split_words(terms or os.environ.get("AGENT_SAFETY_TERMS") or "examples")
    try:
        is_well = run_check(file, wanted, typer.echo, as_json=as_json)
    except TermsError as exc:
        _stop(str(exc), WRONG_USE)
    raise typer.Exit(0 if is_well else 1)


for command in (run, status, cancel, outputs, forward, check_images):
    app.command()(command)
app.add_typer(workflow_commands, name="workflow")


def _load_settings(**given: Any) -> Settings:
    from agent.inputs.addresses import AllowList  # noqa: PLC0415
    from agent.settings import SettingsError, load_settings  # noqa: PLC0415

    try:
        settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    except SettingsError as exc:
        _stop("; ".join(str(exc).splitlines()), WRONG_USE)
    try:
        AllowList.parse(settings.fetch_allow)
    except ValueError as exc:
        _stop(str(exc), WRONG_USE)
    return settings


def _say_os_error(exc: OSError, settings: Settings) -> str:
    """What keeps a file from being read or the port from being opened, and what to do about it."""
    port, host = settings.port, settings.host
    if exc.filename is not None:
        return f"{exc.filename} cannot be read: {exc.strerror}."
    match exc.errno:
        case errno.EADDRINUSE:
            return (
                f"port {port} is in use on {host}: stop the program that has it (`ss -ltnp 'sport = :{port}'` names "
                "it), or choose another port with --port or AGENT_PORT."
            )
        case errno.EACCES:
            return f"port {port} may not be opened by this user: choose one above 1023 with --port or AGENT_PORT."
        case errno.EADDRNOTAVAIL:
            return f"{host} is no address of this machine: choose another with --host or AGENT_HOST."
        case _:
            return f"port {port} cannot be opened on {host}: {exc.strerror or exc}."


def _stop(sentence: str, code: int = 1) -> NoReturn:
    typer.echo(f"comfyui-agent: {sentence}", err=True)
    raise typer.Exit(code) from None


def _bold(text: str) -> str:
    """typer takes the codes out again where the output is no terminal."""
    return text if "NO_COLOR" in os.environ else typer.style(text, bold=True)


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="comfyui-agent")


if __name__ == "__main__":
    main()
