"""What kinds of input files there are, and how large they may be. Apart from `media`, which needs Pillow."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class MediaKind(StrEnum):
    """What a node's input wants."""

    IMAGE = "image"  #: a still or animated picture that Pillow reads
    VIDEO = "video"  #: a video container, or an animation
    AUDIO = "audio"  #: an audio file, or a video container whose sound is used
    FILE = "file"  #: anything: 3D models, text, archives


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """How large an input may be: bytes of the file, and width times height of a picture."""

    max_bytes: int
    max_pixels: int
