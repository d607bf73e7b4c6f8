"""Settings of the input media."""

from __future__ import annotations

from pydantic import Field

from agent.settings_types import SettingsGroup, WordList


class InputSettings(SettingsGroup):
    """Where inputs may come from, and how large they may be."""

    fetch_allow: WordList = Field(
        default_factory=list,
        description="Comma-separated hosts and networks that input URLs may reach although they are private.",
    )
    fetch_timeout_seconds: float = Field(30, gt=0, description="How long the download of one input may take.")
    input_buckets: WordList = Field(
        default_factory=list,
        description="Comma-separated buckets, or bucket/prefix, that s3:// and oss:// inputs may name. None: none.",
    )
    max_input_bytes: int = Field(64 * 2**20, gt=0, description="Largest input file, decoded or downloaded.")
    max_input_pixels: int = Field(100_000_000, gt=0, description="Largest input picture, width times height.")
