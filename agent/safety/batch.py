"""Judges the pictures of a folder, such as those of a training set, as those of tasks are judged."""

from __future__ import annotations

import asyncio
import csv
import json
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from agent.safety.judge import Finding, Judge, Judgement

#: What counts as a picture, by the end of its name.
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})

#: Pictures that are under way at the same time. The judge bounds what is decoded and asked.
WINDOW = 8

#: What is said of a file in one word.
FINE, UNREADABLE, UNKNOWN = "", "unreadable", "unknown"


@dataclass(frozen=True, slots=True)
class Judged:
    """A file and what was found of it. `word`: the category that counts first; empty for a picture that is fine;
    "unreadable"; "unknown" where a classifier gave no answer and nothing else was found."""

    file: str
    word: str
    findings: list[Finding]
    down: dict[str, str]

    @property
    def is_known(self) -> bool:
        """Whether it was judged."""
        return self.word not in (UNREADABLE, UNKNOWN)

    def to_dict(self) -> dict[str, object]:
        return {
            "file": self.file,
            "found": self.word or None,
            "verdicts": [
                {"step": f.step, "category": f.category, "score": f.score, "ms": f.ms} for f in self.findings
            ],
            **({"no_answer": self.down} if self.down else {}),
        }


def pictures_of(folder: Path) -> list[Path]:
    """Every picture in the folder and those below it, in the order of their names. Raises OSError."""
    return sorted(path for path in _walk(folder) if path.suffix.lower() in PICTURES)


async def judge_all(judge: Judge, folder: Path, paths: Sequence[Path]) -> AsyncGenerator[Judged, None]:
    """What is found of each, in their order."""
    await judge.prepare()
    left = iter(paths)
    window: deque[asyncio.Task[Judged]] = deque()
    try:
        while True:
            while len(window) < WINDOW and (path := next(left, None)) is not None:
                window.append(asyncio.create_task(_judge(judge, folder, path)))
            if not window:
                return
            yield await window[0]
            window.popleft()
    finally:
        for task in window:
            task.cancel()
        await asyncio.gather(*window, return_exceptions=True)


async def write_report(
    judge: Judge, folder: Path, paths: Sequence[Path], report: Path, step: Callable[[], object]
) -> list[Judged]:
    """Write what is found of each picture to `report`, CSV or JSON lines by its name, and return it. `step` is called
    after each. Raises OSError."""
    found = []
    with report.open("w", newline="", encoding="utf-8") as file:
        write = _csv_writer(file) if report.suffix.lower() == ".csv" else _json_writer(file)
        async with aclosing(judge_all(judge, folder, paths)) as all_judged:
            async for judged in all_judged:
                write(judged)
                found.append(judged)
                step()
    return found


def read_labels(path: Path) -> dict[str, str]:
    """File -> label from a CSV with the columns `file` and `label`. Raises OSError, ValueError."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if not {"file", "label"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{path} has no columns file and label")
        return {row["file"]: (row["label"] or "").strip() for row in rows}


def counts(found: Sequence[Judged]) -> dict[str, int]:
    """How many files of each word, the most frequent first."""
    return dict(Counter(judged.word or "fine" for judged in found).most_common())


async def _judge(judge: Judge, folder: Path, path: Path) -> Judged:
    name = path.relative_to(folder).as_posix()
    try:
        data = await asyncio.to_thread(path.read_bytes)
    except OSError:
        return Judged(name, UNREADABLE, [], {})
    judgement = await judge.judge(data, "image/*", failed=True, classified=bool(judge.classifiers))
    return Judged(name, _word(judgement), judgement.findings, judgement.down)


def _word(judgement: Judgement) -> str:
    if judgement.is_unseen:
        return UNREADABLE
    if judgement.unsafe:
        return judgement.unsafe[0].category
    if judgement.failed:
        return judgement.failed.category
    return UNKNOWN if judgement.down else FINE


def _walk(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            yield from _walk(entry)
        elif entry.is_file():
            yield entry


def _json_writer(file: TextIO) -> Callable[[Judged], None]:
    def write(judged: Judged) -> None:
        file.write(json.dumps(judged.to_dict(), ensure_ascii=False) + "\n")

    return write


def _csv_writer(file: TextIO) -> Callable[[Judged], None]:
    rows = csv.writer(file)
    rows.writerow(("file", "found", "step", "category", "score", "ms"))

    def write(judged: Judged) -> None:
        for finding in judged.findings:
            rows.writerow(
                (judged.file, judged.word, finding.step, finding.category, finding.score, finding.ms)
            )
        if not judged.findings:
            rows.writerow((judged.file, judged.word, "", "", "", ""))

    return write
