"""The manifest beside a workflow: what it is for, and which inputs of its nodes a caller sets by name.

docs/workflows.md describes every field.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

#: Names of workflows, parameters and tags: they stand in URLs, in forms and in shells.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

#: Seeds of ComfyUI's nodes go this far.
LARGEST_SEED = 2**64 - 1

#: A text for people: one for everybody, or one a language, of which English is needed.
Text = str | dict[Literal["en", "zh", "ja"], str]


class Kind(StrEnum):
    """What a parameter takes."""

    TEXT = "text"  #: words for a model, of several lines
    STRING = "string"  #: a short text
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    CHOICE = "choice"  #: one of `choices`
    SEED = "seed"  #: 0 to 2^64 - 1, or -1 for a random one
    IMAGE = "image"
    MASK = "mask"  #: a picture, white where something shall happen
    VIDEO = "video"
    AUDIO = "audio"
    MODEL = "model"  #: the name of a model file that the engine has

    @property
    def is_file(self) -> bool:
        return self in (Kind.IMAGE, Kind.MASK, Kind.VIDEO, Kind.AUDIO)

    @property
    def is_text(self) -> bool:
        """Whether its value is text as it comes, also the empty one."""
        return self in (Kind.TEXT, Kind.STRING)


def _check_text(value: Any) -> Any:
    if isinstance(value, dict) and "en" not in value:
        raise ValueError("a text in several languages needs English (en)")
    return value


def _to_list(value: Any) -> Any:
    return [value] if isinstance(value, str | int) else value


def _to_words(value: Any) -> Any:
    """YAML reads a node id of digits as a number."""
    listed = _to_list(value)
    if not isinstance(listed, list):
        return listed
    return [str(item) if type(item) is int else item for item in listed]


Shown = Annotated[Text, BeforeValidator(_check_text)]
Words = Annotated[list[str], BeforeValidator(_to_words)]


class Part(BaseModel):
    """A part of a manifest. A word that it does not know is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Place(Part):
    """An input of a node."""

    node: str
    input: str

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read "NODE.INPUT". Only the input's name may hold further dots. Raises ValueError."""
        node, _, name = text.partition(".")
        if not node or not name:
            raise ValueError(f'"{text}" names no input: write NODE.INPUT, such as "6.text"')
        return cls(node=node, input=name)

    def __str__(self) -> str:
        return f"{self.node}.{self.input}"


class Parameter(Part):
    """Something that a caller sets."""

    title: Shown
    description: Shown | None = None
    type: Kind = Field(strict=False)
    sets: Words = Field(min_length=1)
    default: str | int | float | bool | None = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    step: int | float | None = None
    choices: list[str | int | float] | dict[str | int | float, Shown] | None = None
    multiline: bool | None = None
    required: bool | None = None
    hidden: bool = False
    mask_of: str | None = None

    @property
    def places(self) -> list[Place]:
        return [Place.parse(text) for text in self.sets]

    @property
    def options(self) -> dict[str | int | float, Text]:
        """The values of a choice and their titles."""
        if isinstance(self.choices, dict):
            return self.choices
        return {value: str(value) for value in self.choices or ()}

    @property
    def is_required(self) -> bool:
        """A file has no default in the graph: the one named there is that of whoever exported it."""
        if self.required is not None:
            return self.required
        return self.type.is_file and self.default is None

    @property
    def limits(self) -> tuple[int | float | None, int | float | None]:
        """Smallest and largest value."""
        return (-1, LARGEST_SEED) if self.type is Kind.SEED else (self.minimum, self.maximum)

    @model_validator(mode="after")
    def _check(self) -> Self:
        places = self.places
        numeric = self.type in (Kind.INTEGER, Kind.NUMBER)
        if not numeric and (self.minimum, self.maximum, self.step) != (None, None, None):
            raise ValueError("minimum, maximum and step are for integer and number")
        if (self.choices is not None) is not (self.type is Kind.CHOICE):
            raise ValueError("a choice, and nothing else, has choices")
        if self.mask_of is not None and self.type is not Kind.MASK:
            raise ValueError("mask_of is for a mask")
        if self.type is Kind.SEED and any(place.input not in ("seed", "noise_seed") for place in places):
            raise ValueError("a seed sets inputs called seed or noise_seed; for others use integer")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum is larger than maximum")
        return self


class Model(Part):
    """A file that the engine needs. `source` says in words where it is to be had."""

    folder: str
    file: str
    source: str = ""


class Manifest(Part):
    """What is known of a named workflow beside its graph. `outputs` are the ids of the nodes whose files matter, in
    order; empty: all output nodes."""

    title: Shown
    description: Shown | None = None
    tags: list[str] = Field(default_factory=list)
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    outputs: Words = Field(default_factory=list)
    models: list[Model] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, parameter in self.parameters.items():
            if not NAME.fullmatch(name):
                raise ValueError(f'"{name}" is no name of a parameter: letters, digits, - and _ only')
            image = parameter.mask_of
            if image is not None and (
                image not in self.parameters or self.parameters[image].type is not Kind.IMAGE
            ):
                raise ValueError(f'"{name}" is a mask of "{image}", which is no image parameter')
        taken: dict[str, str] = {}
        for name, parameter in self.parameters.items():
            for place in map(str, parameter.places):
                if place in taken:
                    raise ValueError(f'"{taken[place]}" and "{name}" both set {place}')
                taken[place] = name
        return self


def to_yaml(manifest: Manifest) -> str:
    """The text of a manifest, as people would write it."""
    import yaml  # noqa: PLC0415 - the importer and its caller are the only ones who write

    data = manifest.model_dump(mode="json", exclude_defaults=True)
    for parameter in data.get("parameters", {}).values():
        if len(parameter["sets"]) == 1:
            (parameter["sets"],) = parameter["sets"]
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110, default_flow_style=False)
    return text


def english(text: Text) -> str:
    return text if isinstance(text, str) else text["en"]
