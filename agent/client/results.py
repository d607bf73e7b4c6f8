"""What a run gives."""

from __future__ import annotations

import mimetypes
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

#: What Python's own table may lack.
PICTURE_SUFFIXES = (".webp", ".avif")


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One file that a node produced. `filename` is the engine's: do not take it for a path."""

    node_id: str
    filename: str
    data: bytes = field(repr=False)

    @property
    def is_picture(self) -> bool:
        """Whether its name says that it is one; an animation counts."""
        guessed = mimetypes.guess_type(self.filename)[0] or ""
        return guessed.startswith("image/") or self.filename.lower().endswith(PICTURE_SUFFIXES)

    def image(self) -> Image:
        """The file as a Pillow image. Raises PIL.UnidentifiedImageError for anything else."""
        import io  # noqa: PLC0415

        from PIL import Image as PillowImage  # noqa: PLC0415 - who only moves bytes does not need Pillow

        return PillowImage.open(io.BytesIO(self.data))


@dataclass(frozen=True, slots=True)
class Result:
    """A task that succeeded. `nodes` is the progress map without the results; these are in `outputs`, in order."""

    task_id: str
    nodes: dict[str, dict[str, Any]] = field(repr=False)
    outputs: list[OutputFile]

    def images(self) -> list[Image]:
        """The outputs that are pictures, as Pillow images, in order."""
        return [output.image() for output in self.outputs if output.is_picture]
