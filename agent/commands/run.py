"""`comfyui-agent run`: run a workflow on an agent, follow it, and fetch what it makes."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.commands.remote import (
    DEFAULT_URL,
    EXIT_CODES,
    ApiKey,
    AsJson,
    Stop,
    Url,
    complain,
    run_until_stopped,
)

MOST_RUNS = 64


def run(
    workflow: Annotated[
        str,
        typer.Argument(
            help="A file in ComfyUI's API format (- for stdin), or the name of a workflow that the agent has.",
            metavar="FILE|NAME",
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A value: NODE.INPUT=VALUE in a file, PARAMETER=VALUE of a NAME. It is read as JSON, else as text; "
            "@FILE reads a file, @@ begins a text with @.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            help="A picture, video or sound: NODE.INPUT or PARAMETER, and a file or URL.",
            metavar="NAME=FILE",
        ),
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, max=MOST_RUNS, help="Run it so often at once, with different seeds.")
    ] = 1,
    out: Annotated[str, typer.Option(help="Folder for the outputs.", metavar="DIR")] = "comfyui-output",
    is_async: Annotated[
        bool, typer.Option("--async", help="Hand it over, print the ids of the tasks, and do not wait.")
    ] = False,
    task_id: Annotated[
        str | None,
        typer.Option(
            help="Id of the task; with --count, ID-1, ID-2, ... An id never runs twice: sent again it gives what it "
            "gave.",
            metavar="ID",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Cancel what is not over after so many seconds.",
            metavar="SECONDS",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Run a workflow on an agent, and fetch what it makes.

    Prints the paths of the files, and shows the progress on stderr where that is a terminal. Ctrl-C cancels what was
    started. The seeds of further runs with --count follow the first one's; a seed of -1 is random each time.
    """
    from agent.commands.values import split_all  # noqa: PLC0415
    from agent.commands.work import Order, carry_out  # noqa: PLC0415

    try:
        order = Order(
            workflow=workflow,
            settings=split_all(settings or [], "--set"),
            files=split_all(images or [], "--image"),
            count=count,
            out=None if is_async else out,
            task_id=task_id,
            timeout=timeout,
            as_json=as_json,
            with_bars=not (quiet or as_json or is_async),
        )
    except Stop as stop:
        complain(str(stop))
        raise typer.Exit(stop.code) from None
    run_until_stopped(carry_out(order, url, api_key))


run.__doc__ = f"{run.__doc__}\n    {EXIT_CODES}"
