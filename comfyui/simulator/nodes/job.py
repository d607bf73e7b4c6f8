"""What a running node may know and do beside computing: files, progress, messages."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

    from comfyui.simulator.faults import Faults
    from comfyui.simulator.folders import Folders
    from comfyui.simulator.options import Options


class Interrupted(Exception):
    """The prompt was interrupted by POST /interrupt."""


class Reporter(Protocol):
    """Where a job's progress and messages go."""

    def update(self, value: float, maximum: float, picture: Image.Image | None, kind: str) -> None:
        """Report progress; raises Interrupted if the prompt is to stop."""

    def text(self, text: str) -> None:
        """Send a text message for this node to every client."""


@dataclass(frozen=True)
class Job:
    """The run of one node, handed to its function."""

    node_id: str
    prompt: dict[str, Any]
    extra_data: dict[str, Any]
    options: Options
    folders: Folders
    faults: Faults
    reporter: Reporter
    temp_letters: str  #: stays the same while the server keeps the node
    is_stand_in: Callable[[], bool]  #: whether anything before this node only stands in for a model

    def progress(
        self, value: float, maximum: float, picture: Image.Image | None = None, kind: str = "JPEG"
    ) -> None:
        """Report progress, with a preview if there is a picture. Raises Interrupted."""
        self.reporter.update(value, maximum, picture, kind)

    def sleep(self, seconds: float) -> None:
        """Take this long; not interruptible, as a busy node is not."""
        if seconds > 0:
            time.sleep(seconds)
