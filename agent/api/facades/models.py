"""Which named workflow serves which model name: a built-in table, and the operator's own beside it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from agent.errors import InvalidParameter, ModelNotFound
from agent.settings import SettingsError


class Answer(StrEnum):
    """What a model's result is, for the APIs that tell several kinds apart."""

    PICTURE = "picture"  #: the bytes of a picture
    JSON = "json"  #: a picture as base64 in JSON
    RESPONSE = "response"  #: generated text
    TRANSLATION = "translation"  #: translated text
    LABELS = "labels"  #: what a picture shows: labels with scores, as JSON text of the workflow


class Model(BaseModel):
    """What a model name stands for. `workflow` draws from words alone, `lora` does so with a LoRA that the caller
    names, `edit` changes a picture, `inpaint` changes the part of it that a mask shows. `values` are those of the
    workflows' parameters for which the caller gives none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workflow: str | None = None
    lora: str | None = None
    edit: str | None = None
    inpaint: str | None = None
    values: dict[str, Any] = Field(default_factory=dict)
    answer: Answer = Answer.PICTURE

    @property
    def workflows(self) -> list[str]:
        return [name for name in (self.workflow, self.lora, self.edit, self.inpaint) if name is not None]

    def workflow_for(self, *, has_picture: bool, has_mask: bool, has_lora: bool = False) -> str:
        """Raises InvalidParameter where it has none for that."""
        if has_lora:
            if self.lora is None or has_picture:
                what = (
                    "this model takes no LoRA" if self.lora is None else "a picture is changed without LoRA"
                )
                raise InvalidParameter(f'Parameter "prompt": {what}.', parameter="prompt")
            return self.lora
        found = self.inpaint if has_mask else self.edit if has_picture else self.workflow
        if found is not None:
            return found
        if has_mask:
            raise InvalidParameter("This model takes no mask.", parameter="mask")
        if has_picture and self.inpaint is not None:
            raise InvalidParameter("This model needs a mask.", parameter="mask")
        if has_picture:
            raise InvalidParameter("This model takes no picture.", parameter="image")
        raise InvalidParameter("This model needs a picture.", parameter="image")


def checkpoint(file: str, values: Mapping[str, Any], answer: Answer = Answer.PICTURE) -> Model:
    """A model that is one checkpoint file, which all workflows of Stable Diffusion 1.5 load as well."""
    return Model(
        workflow="text-to-image",
        lora="lora",
        edit="image-to-image",
        inpaint="inpaint",
        values={"checkpoint": file, **values},
        answer=answer,
    )


_LARGE = {"width": 1024, "height": 1024}
_SD15 = checkpoint("v1-5-pruned-emaonly.safetensors", {})
_SDXL = checkpoint("sd_xl_base_1.0.safetensors", {**_LARGE, "megapixels": 1.0})
_LCM = checkpoint(
    "DreamShaper8_LCM.safetensors", {"sampler": "lcm", "scheduler": "sgm_uniform", "steps": 8, "cfg": 2.0}
)
_SCHNELL = checkpoint(
    "flux1-schnell-fp8.safetensors", {**_LARGE, "scheduler": "simple", "steps": 4, "cfg": 1.0}, Answer.JSON
)

#: What version 3.54 of the `openai` package names (openai.types.ImageModel).
OPENAI_MODELS = (
    *("gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5", "gpt-image-2", "gpt-image-2-2026-04-21"),
    *("gpt-image-2.5-sunburst", "gpt-image-2.5-sunburst-2026-09-08"),
    *("gpt-image-2.5-flare", "gpt-image-2.5-flare-2026-09-08"),
    *("gpt-image-2.6-sunburst", "gpt-image-2.6-flare", "chatgpt-image-latest", "dall-e-2", "dall-e-3"),
)

#: What AUTOMATIC1111's API draws with where the caller names no checkpoint; the original begins with this file too.
DEFAULT_CHECKPOINT = "automatic1111"

BUILT_IN: Mapping[str, Model] = {
    "@cf/stabilityai/stable-diffusion-xl-base-1.0": _SDXL,
    "@cf/runwayml/stable-diffusion-v1-5-img2img": _SD15.model_copy(update={"workflow": None, "lora": None}),
    "@cf/runwayml/stable-diffusion-v1-5-inpainting": _SD15.model_copy(
        update={"workflow": None, "lora": None, "edit": None}
    ),
    "@cf/lykon/dreamshaper-8-lcm": _LCM,
    "@cf/black-forest-labs/flux-1-schnell": _SCHNELL.model_copy(
        update={"lora": None, "edit": None, "inpaint": None}
    ),
    **dict.fromkeys(OPENAI_MODELS, _SDXL),
    "gpt-image-*": _SDXL,
    DEFAULT_CHECKPOINT: _SD15,
}


class ModelTable:
    """The models by name. A name may have * as wildcard, for names that no line has; the first that fits counts.

    `own`: the operator's lines, which come before the built-in ones; None takes a name away.
    """

    def __init__(self, own: Mapping[str, Model | None]) -> None:
        #: The operator's lines, those with wildcards included.
        self.lines = {name: model for name, model in own.items() if model is not None}
        #: Their names, without wildcards.
        self.own = [name for name in self.lines if "*" not in name]
        self._models = {**own, **{name: model for name, model in BUILT_IN.items() if name not in own}}

    @property
    def names(self) -> list[str]:
        """Those without wildcards."""
        return [name for name, model in self._models.items() if model is not None and "*" not in name]

    @property
    def models(self) -> list[Model]:
        return [model for model in self._models.values() if model is not None]

    def get(self, name: str) -> Model:
        """Raises ModelNotFound."""
        found = name if name in self._models else next(filter(partial(_fits, name), self._models), "")
        if (model := self._models.get(found)) is None:
            raise ModelNotFound(f'There is no model "{name[:64]}". AGENT_MODELS can name a workflow for it.')
        return model


def _fits(name: str, pattern: str) -> bool:
    return "*" in pattern and fnmatchcase(name, pattern)


def read_models(path: str | None) -> ModelTable:
    """The table with what the operator's file says: model name -> Model, or null for one that shall not be there.

    Raises SettingsError.
    """
    if path is None:
        return ModelTable({})
    try:
        data = yaml.safe_load(Path(path).read_bytes())
    except OSError as exc:
        raise SettingsError(f"AGENT_MODELS: {path}: {exc.strerror or exc}") from None
    except (yaml.YAMLError, ValueError) as exc:
        raise SettingsError(f"AGENT_MODELS: {path} is not YAML: {' '.join(str(exc).split())}") from None
    try:
        return ModelTable(TypeAdapter(dict[str, Model | None]).validate_python(data, strict=False))
    except ValidationError as exc:
        found = exc.errors(include_url=False)[0]
        where = ".".join(map(str, found["loc"]))
        raise SettingsError(f"AGENT_MODELS: {path}: {where}: {found['msg']}") from None
