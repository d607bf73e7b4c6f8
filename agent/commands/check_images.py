"""`comfyui-agent check-images`: the review's steps on a folder of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from agent.safety.batch import Judged
    from agent.settings import Settings

#: A command line or a setting that makes no sense: the same call cannot succeed.
WRONG_USE = 2


def check_images(
    folder: Annotated[Path, typer.Argument(help="Pictures, also in folders below it.", metavar="FOLDER")],
    report: Annotated[
        Path, typer.Option(help="Where to write what was found: .jsonl, or .csv.", metavar="FILE")
    ] = Path("check-images.jsonl"),
    labels: Annotated[
        Path | None,
        typer.Option(
            help="A CSV with the columns file and label (empty: fine): also say how well it was met.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Judge the pictures of a folder as those of tasks are. The settings AGENT_SAFETY_* say how.

    Found are failed pictures, and what AGENT_SAFETY_IMAGE_CLASSIFIERS name. No picture is changed.

    Exit code: 0 if each was judged, whatever was found; 1 if some were not; 2 if an argument or a setting is wrong.
    """
    import asyncio  # noqa: PLC0415
    import sys  # noqa: PLC0415

    import structlog  # noqa: PLC0415

    from agent.safety.batch import counts, pictures_of, read_labels  # noqa: PLC0415
    from agent.safety.scoring import as_table, scores  # noqa: PLC0415
    from agent.settings import SettingsError, load_settings  # noqa: PLC0415

    # Lines of the log would stand among those of the summary.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        settings = load_settings()
        known = read_labels(labels) if labels is not None else {}
        paths = pictures_of(folder)
        found = asyncio.run(_judge(settings, folder, paths, report))
    except OSError as exc:
        _stop(f"{exc.filename or folder} cannot be used: {exc.strerror or exc}")
    except (SettingsError, ValueError) as exc:
        _stop("; ".join(str(exc).splitlines()))
    typer.echo(f"{len(found)} pictures; {report} has what was found of each:")
    for word, count in counts(found).items():
        typer.echo(f"{count:>8}  {word}")
    if labels is not None:
        pairs = [(known[judged.file], judged.word) for judged in found if judged.file in known]
        typer.echo("\n".join(("", f"{len(pairs)} of them have a label:", *as_table(scores(pairs)))))
    raise typer.Exit(0 if all(judged.is_known for judged in found) else 1)


async def _judge(settings: Settings, folder: Path, paths: list[Path], report: Path) -> list[Judged]:
    from agent.safety.batch import write_report  # noqa: PLC0415
    from agent.safety.classifiers.build import build_image_classifiers  # noqa: PLC0415
    from agent.safety.judge import Judge  # noqa: PLC0415

    judge = Judge(settings, build_image_classifiers(settings), most_pixels=settings.max_output_pixels)
    try:
        with _bar(len(paths)) as step:
            return await write_report(judge, folder, paths, report, step)
    finally:
        await judge.close()


@contextmanager
def _bar(total: int) -> Iterator[Callable[[], object]]:
    """What counts a picture, shown on a terminal as a bar."""
    import sys  # noqa: PLC0415

    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn  # noqa: PLC0415

    console = Console(stderr=True, highlight=False)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        yield lambda: None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)


def _stop(sentence: str) -> NoReturn:
    typer.echo(f"comfyui-agent: {sentence}", err=True)
    raise typer.Exit(WRONG_USE) from None
