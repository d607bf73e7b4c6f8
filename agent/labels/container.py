"""What the file formats of pictures have in common: things told of the picture, in parts of their own beside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Self

#: So much is unpacked of one compressed text, and of all of a file that have to be read.
LONGEST_TEXT, ALL_TEXTS = 16 * 2**20, 64 * 2**20

#: Files of more parts are refused: a PNG of a gigabyte has so many of libpng's usual 8 KB, and parts of no length at
#: all can be had by the million.
MOST_PARTS = 130_000


class BrokenPicture(ValueError):
    """The bytes are not what their format says."""


def check_parts(count: int) -> None:
    """Raises BrokenPicture for a file of more than MOST_PARTS."""
    if count > MOST_PARTS:
        raise BrokenPicture(f"it has more than {MOST_PARTS} parts")


class DoesNotFit(ValueError):
    """The format has no room for this."""


class Container(ABC):
    """A picture's file, taken apart no further than is needed. The parts that hold the picture itself stay as they
    are, byte by byte."""

    media_type: ClassVar[str]

    @classmethod
    @abstractmethod
    def parse(cls, data: bytes) -> Self:
        """Raises BrokenPicture."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""

    @property
    @abstractmethod
    def xmp(self) -> bytes | None:
        """The XMP packet."""

    @abstractmethod
    def set_xmp(self, packet: bytes) -> None:
        """Write or replace the XMP packet. Raises DoesNotFit."""

    @property
    @abstractmethod
    def exif(self) -> bytes | None:
        """The EXIF data, which begin as a TIFF file does."""

    @abstractmethod
    def set_exif(self, tiff: bytes | None) -> None:
        """Write, replace or remove the EXIF data. Raises DoesNotFit."""

    @property
    @abstractmethod
    def has_credentials(self) -> bool:
        """Whether there are C2PA content credentials, valid or not."""

    @abstractmethod
    def remove_credentials(self) -> None:
        """Remove C2PA content credentials: they are valid for one file, and any change breaks them."""

    @abstractmethod
    def remove_texts(self, is_unwanted: Callable[[str, str], bool]) -> None:
        """Remove the format's own texts for which the callback, given keyword and text, says so."""

    @abstractmethod
    def adopt(self, other: Self) -> None:
        """Take over everything that another file of this format tells of itself, but not its pixels."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """The whole file."""
