"""The base of data models."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A model whose validator is made when it is first used: most starts need none of them to open the port."""

    model_config = ConfigDict(defer_build=True)
