"""Generation parameters, found in the graph."""

from __future__ import annotations

import re
from typing import Any

import pytest

from agent.labels.parameters import parameters_text
from comfyui.workflow import Workflow
from tests.integration.agent import graphs


def text_of(graph: dict[str, Any], node: str | None = None) -> str | None:
    return parameters_text(Workflow.parse(graph), node or list(graph)[-1], (640, 480))


def facts(text: str | None) -> dict[str, str]:
    """The last line, as the web UI's own reader takes it apart."""
    assert text is not None
    return {
        k.strip(): v
        for k, v in re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', text.splitlines()[-1])
    }


CLASSIC: dict[str, Any] = {
    "4": graphs.node("CheckpointLoaderSimple", ckpt_name="sub/dream.v1.safetensors"),
    "10": graphs.node(
        "LoraLoader", model=["4", 0], clip=["4", 1], lora_name="x.safetensors", strength_model=1.0
    ),
    "5": graphs.node("EmptyLatentImage", width=512, height=768, batch_size=1),
    "6": graphs.node("CLIPTextEncode", text="a castle,\non a hill", clip=["10", 1]),
    "7": graphs.node("CLIPTextEncode", text="blurry", clip=["10", 1]),
    "3": graphs.node(
        "KSampler",
        model=["10", 0],
        positive=["6", 0],
        negative=["7", 0],
        latent_image=["5", 0],
        seed=2**63,
        steps=20,
        cfg=6.5,
        sampler_name="dpmpp_2m",
        scheduler="karras",
        denoise=1.0,
    ),
    "8": graphs.node("VAEDecode", samples=["3", 0], vae=["4", 2]),
    "9": graphs.node("SaveImage", images=["8", 0], filename_prefix="x"),
}


def test_classic_graph() -> None:
    assert text_of(CLASSIC) == (
        "a castle,\non a hill\n"
        "Negative prompt: blurry\n"
        "Steps: 20, Sampler: dpmpp_2m, Schedule type: karras, CFG scale: 6.5, Seed: 9223372036854775808, "
        "Size: 512x768, Model: dream.v1, Version: ComfyUI"
    )


def test_second_pass_counts_and_its_size_is_the_pictures() -> None:
    second = {**CLASSIC["3"]["inputs"], "latent_image": ["11", 0], "steps": 8, "denoise": 0.4, "seed": 1}
    graph = {
        **CLASSIC,
        "11": graphs.node("LatentUpscale", samples=["3", 0]),
        "12": graphs.node("KSampler", **second),
        "8": graphs.node("VAEDecode", samples=["12", 0], vae=["4", 2]),
    }
    found = facts(text_of(graph, "9"))
    assert (found["Steps"], found["Denoising strength"], found["Size"]) == ("8", "0.4", "640x480")


def test_refiner_goes_on_with_the_seed_and_model_of_another_sampler() -> None:
    refining = {**CLASSIC["3"]["inputs"], "latent_image": ["3", 0], "noise_seed": 0, "add_noise": "disable"}
    graph = {
        **CLASSIC,
        "12": graphs.node("KSamplerAdvanced", **refining),
        "8": graphs.node("VAEDecode", samples=["12", 0], vae=["4", 2]),
    }
    assert text_of(graph, "9") == text_of(CLASSIC)


FLUX: dict[str, Any] = {
    "1": graphs.node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default"),
    "2": graphs.node("DualCLIPLoader", clip_name1="a", clip_name2="b", type="flux"),
    "3": graphs.node(
        "CLIPTextEncodeFlux", clip=["2", 0], clip_l="a fox", t5xxl="a fox in the snow", guidance=3.5
    ),
    "4": graphs.node("BasicGuider", model=["1", 0], conditioning=["3", 0]),
    "5": graphs.node("RandomNoise", noise_seed=["11", 0]),
    "6": graphs.node("KSamplerSelect", sampler_name="euler"),
    "7": graphs.node("BasicScheduler", model=["1", 0], scheduler="simple", steps=25, denoise=1.0),
    "8": graphs.node("EmptySD3LatentImage", width=1024, height=512, batch_size=1),
    "9": graphs.node(
        "SamplerCustomAdvanced",
        noise=["5", 0],
        guider=["4", 0],
        sampler=["6", 0],
        sigmas=["7", 0],
        latent_image=["8", 0],
    ),
    "11": graphs.node("PrimitiveInt", value=77),
    "10": graphs.node("SaveImage", images=["9", 0], filename_prefix="x"),
}


def test_sampler_of_several_nodes() -> None:
    text = text_of(FLUX)
    assert text is not None
    assert text.splitlines()[0] == "a fox in the snow"
    assert "Negative prompt" not in text
    found = facts(text)
    assert found["Steps"] == "25"
    assert found["Sampler"] == "euler"
    assert found["Schedule type"] == "simple"
    assert found["Distilled CFG Scale"] == "3.5"
    assert (found["Seed"], found["Size"], found["Model"]) == ("77", "1024x512", "flux1-dev")


def test_texts_are_followed_through_nodes_that_pass_both_on() -> None:
    graph = {
        **CLASSIC,
        "20": graphs.node("ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], strength=1.0),
        "21": graphs.node("PrimitiveString", value="from a string"),
        "7": graphs.node("CLIPTextEncode", text=["21", 0], clip=["10", 1]),
        "22": graphs.node("ConditioningCombine", conditioning_1=["20", 0], conditioning_2=["23", 0]),
        "23": graphs.node("CLIPTextEncode", text="second text", clip=["10", 1]),
    }
    graph["3"] = graphs.node(
        "KSampler", **{**graph["3"]["inputs"], "positive": ["22", 0], "negative": ["20", 1]}
    )
    text = text_of(graph, "9")
    assert text is not None
    assert text.startswith("a castle,\non a hill, second text\nNegative prompt: from a string\n")


def test_zeroed_text_is_no_negative_prompt() -> None:
    graph = {**CLASSIC, "20": graphs.node("ConditioningZeroOut", conditioning=["6", 0])}
    graph["3"] = graphs.node("KSampler", **{**graph["3"]["inputs"], "negative": ["20", 0]})
    assert "Negative prompt" not in str(text_of(graph, "9"))


@pytest.mark.parametrize("node", ["9", "9.0.0.1"])
def test_expanded_nodes_belong_to_theirs(node: str) -> None:
    assert facts(text_of(CLASSIC, node))["Steps"] == "20"


def test_without_a_sampler_there_is_nothing_to_say() -> None:
    assert text_of(graphs.painted()) is None
    assert text_of(CLASSIC, "99") is None


PLUGS = ("noise", "guider", "sampler", "sigmas")


@pytest.mark.parametrize(("depth", "plugs"), [(200, PLUGS), (1500, ("guider",))])
def test_parts_that_are_plugged_into_each_other_are_gone_through_once(
    depth: int, plugs: tuple[str, ...]
) -> None:
    """Of four links each there are 4 ** 200 ways through these; the other is deeper than Python's stack."""

    def plugged(class_type: str, into: str) -> dict[str, Any]:
        return graphs.node(class_type, **{name: [into, 0] for name in plugs})

    graph = {"s": plugged("SamplerCustomAdvanced", "n0")}
    for number in range(depth):
        graph[f"n{number}"] = plugged("Part", f"n{number + 1}")
    graph[f"n{depth}"] = graphs.node("RandomNoise", noise_seed=7)
    graph["o"] = graphs.node("SaveImage", images=["s", 0])
    assert facts(text_of(graph))["Seed"] == "7"


def test_what_is_told_is_bounded() -> None:
    texts = [f"text {number}" for number in range(20_000)]
    many = {**CLASSIC, "6": graphs.node("CLIPTextEncode", text=texts, clip=["10", 1])}
    assert str(text_of(many)).startswith("text 0, ")
    assert len(str(text_of(many))) < 2000
    long = {**CLASSIC, "6": graphs.node("CLIPTextEncode", text="word " * 100_000, clip=["10", 1])}
    first, _, rest = str(text_of(long)).partition("\n")
    assert (len(first), first[-1]) == (32_000, "…")
    assert rest.startswith("Negative prompt: blurry\nSteps: 20")
    odd = {
        **CLASSIC,
        "3": {**CLASSIC["3"], "inputs": {**CLASSIC["3"]["inputs"], "sampler_name": "a\nb" * 1000}},
    }
    assert len(facts(text_of(odd))["Sampler"]) <= 200
    assert facts(text_of(odd))["Seed"] == str(2**63)


def test_texts_that_are_joined_to_too_much_are_left_out() -> None:
    graph = dict(CLASSIC)
    graph["c0"] = graphs.node("StringConcatenate", string_a="long", string_b="text", delimiter="")
    for number in range(1, 40):
        before = [f"c{number - 1}", 0]
        graph[f"c{number}"] = graphs.node("StringConcatenate", string_a=before, string_b=before, delimiter="")
    graph["6"] = graphs.node("CLIPTextEncode", text=["c39", 0], clip=["10", 1])
    assert str(text_of(graph, "9")).startswith("Steps: 20")
