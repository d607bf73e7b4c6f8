"""Which labels the files of one task carry: what the operator has set, and what its request asks for beyond that."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import ConfigDict

from agent.errors import InvalidOptions
from agent.labels.settings import LabelSettings
from agent.model import Model
from agent.safety.options import stricter
from agent.safety.settings import Mode


class LabelOptions(Model):
    """What a request may say of the labels: off, warn or enforce, but never less than the server's setting."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    iptc: Mode | None = None
    aigc: Mode | None = None
    parameters: Mode | None = None
    remove_prompt: Mode | None = None
    c2pa: Mode | None = None
    mark: Mode | None = None


class Labels(NamedTuple):
    """How firmly each label is wanted for one task."""

    iptc: Mode = Mode.OFF
    aigc: Mode = Mode.OFF
    parameters: Mode = Mode.OFF
    remove_prompt: Mode = Mode.OFF
    c2pa: Mode = Mode.OFF
    mark: Mode = Mode.OFF

    def wanted(self) -> list[str]:
        """The names of those that are not off."""
        return [name for name, mode in self._asdict().items() if mode is not Mode.OFF]


def labels_of(settings: LabelSettings, asked: LabelOptions | None) -> Labels:
    """The stricter of both for each label. Raises InvalidOptions for a request that asks for less than is set, or for
    what this server has nothing to make it with."""
    found = stricter("labels", "label", Labels._fields, settings, asked)
    for name, mode in found.items():
        if getattr(asked, name, None) and mode is not Mode.OFF and (lacking := _lacking(settings, name)):
            raise InvalidOptions(
                f'Option "labels.{name}": this server cannot make this label, since {lacking} is not set.',
                option=f"labels.{name}",
            )
    return Labels(**found)


def is_enforced(settings: LabelSettings) -> bool:
    """Whether no file may be shown here that does not carry some label."""
    return Mode.ENFORCE in labels_of(settings, None)


def _lacking(settings: LabelSettings, name: str) -> str | None:
    if name == "aigc" and not settings.label_aigc_producer:
        return "AGENT_LABEL_AIGC_PRODUCER"
    if name == "c2pa" and not settings.label_c2pa_certificate:
        return "AGENT_LABEL_C2PA_CERTIFICATE"
    return None
