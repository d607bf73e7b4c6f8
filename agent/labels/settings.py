"""The settings of the labels. Everything is off unless the operator asks for it."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from agent.safety.settings import Mode
from agent.settings_types import SettingsGroup

#: How each label's setting goes on.
MODES = "off, warn or enforce."


class Corner(StrEnum):
    """Where the visible mark stands."""

    BOTTOM_RIGHT = "bottom-right"
    BOTTOM_LEFT = "bottom-left"
    TOP_RIGHT = "top-right"
    TOP_LEFT = "top-left"


class LabelSettings(SettingsGroup):
    """The settings that begin with AGENT_LABEL_. Of each label, warn: files that cannot carry it are delivered, and
    the record warns; enforce: the task fails of them."""

    label_iptc: Mode = Field(
        Mode.OFF, description=f"IPTC's DigitalSourceType, trainedAlgorithmicMedia, as XMP: {MODES}"
    )
    label_aigc: Mode = Field(
        Mode.OFF, description=f"The label of GB 45438-2025, as XMP and as text of a PNG: {MODES}"
    )
    label_aigc_producer: str | None = Field(
        None, description="ContentProducer of that label: the provider's name or code."
    )
    label_aigc_propagator: str | None = Field(
        None, description="ContentPropagator of that label, if whoever publishes the pictures is known."
    )
    label_parameters: Mode = Field(
        Mode.OFF, description=f"The generation parameters as viewers of pictures read them: {MODES}"
    )
    label_remove_prompt: Mode = Field(
        Mode.OFF, description=f"Removal of the prompt and workflow that ComfyUI writes into files: {MODES}"
    )
    label_c2pa: Mode = Field(
        Mode.OFF, description=f"C2PA content credentials, signed; needs the extra c2pa: {MODES}"
    )
    label_c2pa_certificate: str | None = Field(
        None,
        description="A PEM file with the certificate that signs them, and those between it and its root.",
    )
    label_c2pa_key: str | None = Field(
        None, description="A PEM file (PKCS #8) with the certificate's private key."
    )
    label_c2pa_algorithm: Literal["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"] = Field(
        "es256", description="How it signs: es256, es384, es512, ps256, ps384, ps512 or ed25519."
    )
    label_mark: Mode = Field(
        Mode.OFF, description=f"A visible text in a corner, for which the picture is encoded anew: {MODES}"
    )
    label_mark_text: str = Field(
        "AI", min_length=1, max_length=40, description="The text of the visible mark."
    )
    label_mark_font: str | None = Field(
        None, description="A font file (TTF, OTF, TTC) for it. Default: one for Latin letters."
    )
    label_mark_height: float = Field(
        5, ge=5, le=25, description="Height of its letters, in percent of the picture's shorter side."
    )
    label_mark_corner: Corner = Field(
        Corner.BOTTOM_RIGHT,
        description="Where it stands: bottom-right, bottom-left, top-right or top-left.",
    )

    @model_validator(mode="after")
    def _labels_have_what_they_need(self) -> Self:
        if self.label_aigc is not Mode.OFF and not self.label_aigc_producer:
            raise ValueError("AGENT_LABEL_AIGC needs AGENT_LABEL_AIGC_PRODUCER, the provider's name or code")
        has_both = self.label_c2pa_certificate and self.label_c2pa_key
        if (self.label_c2pa_certificate or self.label_c2pa_key) and not has_both:
            raise ValueError(
                "AGENT_LABEL_C2PA_CERTIFICATE and AGENT_LABEL_C2PA_KEY belong together: set both of them"
            )
        if self.label_c2pa is not Mode.OFF and not has_both:
            raise ValueError(
                "AGENT_LABEL_C2PA needs AGENT_LABEL_C2PA_CERTIFICATE and AGENT_LABEL_C2PA_KEY, PEM files"
            )
        return self
