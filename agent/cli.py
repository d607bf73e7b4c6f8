"""The command `comfyui-agent`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from agent import __version__

app = typer.Typer(
    help="Runs ComfyUI workflows behind one HTTP interface.", no_args_is_help=True, add_completion=False
)


@app.callback(invoke_without_command=True)
def main_options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Overrides AGENT_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Overrides AGENT_PORT.")] = None,
) -> None:
    """Start the service: open the port, then start the engine."""
    from agent.logs import configure_logs  # noqa: PLC0415 - other commands start quicker without the service
    from agent.serve import serve as run_service  # noqa: PLC0415
    from agent.settings import SettingsError, load_settings  # noqa: PLC0415
    from comfyui.errors import EngineFailedError  # noqa: PLC0415

    given: dict[str, Any] = {"host": host, "port": port}
    try:
        settings = load_settings(**{name: value for name, value in given.items() if value is not None})
        configure_logs(settings.log_format, settings.log_level)
        asyncio.run(run_service(settings))
    except (SettingsError, EngineFailedError, OSError, ValueError) as exc:
        typer.echo(f"comfyui-agent: {exc}", err=True)
        raise typer.Exit(1) from None


@app.command()
def demo(
    out: Annotated[str, typer.Option(help="Folder for the pictures.")] = "demo-output",
) -> None:
    """Run a few workflows through a fresh agent on the embedded simulator."""
    from agent.demo import run_demo  # noqa: PLC0415 - the service starts quicker without it

    raise typer.Exit(run_demo(out))


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="comfyui-agent")


if __name__ == "__main__":
    main()
