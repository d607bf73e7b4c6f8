"""How strictly one task is reviewed: what the operator has set, tightened by what its request asks for."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ConfigDict

from agent.errors import InvalidOptions
from agent.model import Model
from agent.safety.settings import Mode, SafetySettings


class SafetyOptions(Model):
    """What a request may say of the review: off, warn or enforce, but never less than the server's setting."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompts: Mode | None = None
    images: Mode | None = None
    failed_images: Mode | None = None


class Modes(Model):
    """How strictly each part of the review looks at one task."""

    model_config = ConfigDict(frozen=True)

    prompts: Mode = Mode.OFF
    images: Mode = Mode.OFF
    failed_images: Mode = Mode.OFF


def modes_of(settings: SafetySettings, asked: SafetyOptions | None) -> Modes:
    """The stricter of both for each part. Raises InvalidOptions for a request that asks for less than is set."""
    return Modes(**stricter("safety", "safety", Modes.model_fields, settings, asked))


def stricter(
    option: str, prefix: str, names: Iterable[str], settings: object, asked: object
) -> dict[str, Mode]:
    """Name -> the stricter of the setting `PREFIX_NAME` and of what the request's `option` asks for under the name, if
    it does.

    Raises InvalidOptions for a request that asks for less than is set.
    """
    found: dict[str, Mode] = {name: getattr(settings, f"{prefix}_{name}") for name in names}
    for name, at_least in found.items():
        wanted: Mode | None = getattr(asked, name, None)
        if wanted is None:
            continue
        if wanted.strength < at_least.strength:
            raise InvalidOptions(
                f'Option "{option}.{name}": this server has "{at_least.value}", and a request may only be stricter.',
                option=f"{option}.{name}",
            )
        found[name] = wanted
    return found
