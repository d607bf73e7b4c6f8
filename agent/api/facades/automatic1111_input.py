"""What calls of AUTOMATIC1111's txt2img and img2img hold. docs/compatibility.md says what becomes of each parameter."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.api.facades.request import LONGEST_TEXT
from agent.api.parse import in_thread, parse_object, read_body
from agent.errors import InvalidParameter

#: Most pictures of one call.
MOST_PICTURES = 16

#: Characters of the name of a sampler, a scheduler or a checkpoint.
LONGEST_NAME = 1000

#: Seeds of the original are this large; so is a random one.
LARGEST_SEED = 2**32 - 1

#: Refused unless it asks for nothing: leaving it out would make another picture than the caller wants.
REFUSED = {
    "enable_hr": "there is no second pass here; ask for the larger size, or name a workflow that scales up",
    "restore_faces": "there is no restoring of faces here",
    "tiling": "there is no tiling here",
    "styles": "this server keeps no styles",
    "subseed_strength": "there are no variation seeds here",
    "seed_resize_from_h": "seeds belong to the size that is asked for",
    "seed_resize_from_w": "seeds belong to the size that is asked for",
    "script_name": "there are no scripts here; name a workflow that does it in AGENT_MODELS",
    "alwayson_scripts": "there are no extensions here; name a workflow that does it in AGENT_MODELS",
    "refiner_checkpoint": "there is no refiner here; name a workflow that has one in AGENT_MODELS",
    "infotext": "send the parameters one by one",
    "latent_mask": "send the mask as mask",
}

#: Has no meaning here, or changes nothing that could be seen.
IGNORED = (
    *("subseed", "eta", "s_churn", "s_tmax", "s_tmin", "s_noise", "s_min_uncond", "script_args", "comments"),
    *("do_not_save_samples", "do_not_save_grid", "save_images", "force_task_id", "refiner_switch_at"),
    *("firstphase_width", "firstphase_height", "hr_scale", "hr_upscaler", "hr_second_pass_steps"),
    *("hr_resize_x", "hr_resize_y", "hr_checkpoint_name", "hr_sampler_name", "hr_scheduler", "hr_prompt"),
    *("hr_negative_prompt", "image_cfg_scale", "initial_noise_multiplier", "mask_round", "inpainting_fill"),
    *("inpaint_full_res", "inpaint_full_res_padding"),
)

#: What an option may say that cannot be changed here.
FIXED_OPTIONS: dict[str, tuple[Any, ...]] = {"sd_vae": ("Automatic", "None", "", None)}

#: samples_format -> what the pictures of an answer are.
MEDIA_TYPES = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp"}

Call = TypeVar("Call", bound="Drawing")
Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Name = Annotated[str, Field(max_length=LONGEST_NAME)]


class Options(BaseModel):
    """What may be set for one call by override_settings, and for those that follow by POST /options. Others that the
    original knows are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sd_model_checkpoint: Name | None = None
    CLIP_stop_at_last_layers: Annotated[int, Field(ge=1, le=12)] = 1
    samples_format: Name = "png"

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self.samples_format.lower()]


class Drawing(BaseModel):
    """POST /sdapi/v1/txt2img. A parameter that is none of these is ignored or refused."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    prompt: Text = ""
    negative_prompt: Text = ""
    seed: Annotated[int, Field(ge=-1, le=2**64 - 1 - MOST_PICTURES)] = -1
    sampler_name: Name | None = None
    sampler_index: Name | None = None
    scheduler: Name | None = None
    batch_size: Annotated[int, Field(ge=1, le=MOST_PICTURES)] = 1
    n_iter: Annotated[int, Field(ge=1, le=MOST_PICTURES)] = 1
    steps: int | None = None
    cfg_scale: Annotated[float, Field(allow_inf_nan=False)] | None = None
    width: Annotated[int, Field(ge=64, le=2048)] | None = None
    height: Annotated[int, Field(ge=64, le=2048)] | None = None
    denoising_strength: Annotated[float, Field(ge=0, le=1)] | None = None
    disable_extra_networks: bool = False
    override_settings: dict[str, Any] = Field(default_factory=dict)
    override_settings_restore_afterwards: bool = True
    send_images: bool = True

    @property
    def count(self) -> int:
        return self.batch_size * self.n_iter


class Change(Drawing):
    """POST /sdapi/v1/img2img."""

    init_images: Annotated[list[str], Field(min_length=1, max_length=1)]
    mask: str | None = None
    mask_blur: Annotated[int, Field(ge=0, le=64)] = 4
    mask_blur_x: Annotated[int, Field(ge=0, le=64)] | None = None
    mask_blur_y: Annotated[int, Field(ge=0, le=64)] | None = None
    inpainting_mask_invert: bool = False
    resize_mode: Annotated[int, Field(ge=0, le=2)] = 0
    include_init_images: bool = False


async def read_call(request: web.Request, kind: type[Call]) -> tuple[Call, dict[str, Any]]:
    """The call, and its body as it was sent. Raises InvalidJson, InvalidParameter."""
    return await in_thread(request.app, _read, await read_body(request), kind)


def _read(body: bytes, kind: type[Call]) -> tuple[Call, dict[str, Any]]:
    data = parse_object(body)
    return check_call(kind, data), data


def check_call(kind: type[Call], data: dict[str, Any]) -> Call:
    """The call that these parameters make. Raises InvalidParameter."""
    for name, reason in REFUSED.items():
        if name in data and not _asks_nothing(data[name]):
            raise InvalidParameter(f'Parameter "{name}": {reason}.', parameter=name)
    given = _validate(kind, data)
    if given.count > MOST_PICTURES:
        raise InvalidParameter(
            f'Parameter "n_iter": {MOST_PICTURES} pictures at most are made by one call.', parameter="n_iter"
        )
    if given.override_settings and not given.override_settings_restore_afterwards:
        raise InvalidParameter(
            'Parameter "override_settings_restore_afterwards": settings of a call end with it.',
            parameter="override_settings_restore_afterwards",
        )
    return given


def check_options(given: dict[str, Any], *, of: str = "") -> Options:
    """Raises InvalidParameter; `of` begins the names in it."""
    for name, same in FIXED_OPTIONS.items():
        if name in given and given[name] not in same:
            raise InvalidParameter(
                f'Parameter "{of}{name}": it cannot be changed here; a workflow of AGENT_MODELS can have its own.',
                parameter=f"{of}{name}",
            )
    found = _validate(Options, given, of=of)
    if found.samples_format.lower() not in MEDIA_TYPES:
        raise InvalidParameter(
            f'Parameter "{of}samples_format": it is none of {", ".join(MEDIA_TYPES)}.',
            parameter=f"{of}samples_format",
        )
    return found


Model = TypeVar("Model", bound=BaseModel)


def _validate(kind: type[Model], data: dict[str, Any], *, of: str = "") -> Model:
    try:
        return kind.model_validate({name: value for name, value in data.items() if value is not None})
    except ValidationError as exc:
        found = exc.errors(include_url=False, include_input=False)[0]
        name = of + ".".join(map(str, found["loc"]))[:64]
        raise InvalidParameter(f'Parameter "{name}": {found["msg"]}.', parameter=name) from None


def _asks_nothing(value: Any) -> bool:
    """Whether a value is what clients send who do not want it."""
    if isinstance(value, dict):
        return all(
            _asks_nothing(item.get("args") if isinstance(item, dict) else item) for item in value.values()
        )
    if isinstance(value, list):
        return all(item is False for item in value)
    if isinstance(value, int | float):
        return value <= 0
    return value in (None, "", "None")
