"""Where an engine of this machine keeps its files. ComfyUI has no route that deletes one, so one has to know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from comfyui.client import FileRef
from comfyui.launch import means, split_words

#: Flag -> what it moves.
FLAGS = ("--base-directory", "--output-directory", "--temp-directory", "--input-directory")


@dataclass(frozen=True, slots=True)
class Folders:
    """The engine's folders by the `type` of a file. `output` is None where the operator chose the folder,
    `chosen_output`: what he has pictures saved to is his, not ours to tidy up."""

    output: Path | None
    temp: Path
    input: Path
    chosen_output: Path | None = None

    def locate(self, file: FileRef, *, also_chosen: bool = False) -> Path | None:
        """Where the file would be; None for one that is none of these folders', also by way of a link."""
        output = self.output or (self.chosen_output if also_chosen else None)
        root = {"output": output, "temp": self.temp, "input": self.input}.get(file.type)
        if root is None or not file.filename or "\0" in file.filename + file.subfolder:
            return None
        try:
            parent = (root / file.subfolder / file.filename).parent.resolve()
            is_inside = parent.is_relative_to(root.resolve())
        except (OSError, RuntimeError):  # a loop of links, a name that is too long
            return None
        name = Path(file.filename).name
        return parent / name if is_inside and name not in ("", "..") else None


def find_folders(base: Path | None, args: str, working_directory: Path) -> Folders | None:
    """The folders of an engine that is launched with these flags; `base` is what --base-directory would replace.

    None where neither says. Raises EngineFailedError when `args` have an open quote.
    """
    given: dict[str, Path] = {}
    words = split_words(args, "COMFYUI_ARGS")
    for word, following in zip(words, (*words[1:], ""), strict=False):
        name, equals, value = word.partition("=")
        for flag in FLAGS:
            if means(name, flag):
                given[flag] = working_directory / Path(value if equals else following)
    base = given.get("--base-directory", base)
    if base is None:
        return None
    temp = given.get("--temp-directory")
    return Folders(
        output=None if "--output-directory" in given else base / "output",
        chosen_output=given.get("--output-directory"),
        temp=temp / "temp" if temp else base / "temp",  # ComfyUI adds the name itself there
        input=given.get("--input-directory", base / "input"),
    )
