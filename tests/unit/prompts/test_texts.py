"""Which texts a workflow has, and which of them say what a picture shall not show."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.safety.prompts import texts
from agent.safety.prompts.texts import Role, TooMuchText, find_texts, named_role, text_links
from comfyui.catalog import Catalog
from comfyui.workflow import Node, Workflow

Graph = dict[str, Any]
SHIPPED = sorted((Path(__file__).parents[3] / "workflows").glob("*.json"))


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def link(node_id: str, slot: int = 0) -> list[Any]:
    return [node_id, slot]


def encoder(text: Any) -> dict[str, Any]:
    return node("CLIPTextEncode", text=text, clip=link("model", 1))


def graph(**nodes: Any) -> Workflow:
    return Workflow({"model": node("CheckpointLoaderSimple", ckpt_name="x.safetensors"), **nodes})


def roles(workflow: Workflow, catalog: Catalog | None = None) -> dict[str, str]:
    """Text -> positive or negative, as it counts."""
    return {
        text.value: "negative" if text.is_negative else "positive" for text in find_texts(workflow, catalog)
    }


BOTH = {"good": "positive", "bad": "negative"}


def ksampler(**inputs: Any) -> dict[str, Any]:
    wanted = {"model": link("model"), "positive": link("good"), "negative": link("bad"), "cfg": 7.0, **inputs}
    return node("KSampler", sampler_name="euler", scheduler="normal", **wanted)


SAMPLERS: dict[str, Graph] = {
    "KSampler": {"s": ksampler()},
    "KSamplerAdvanced": {
        "s": node("KSamplerAdvanced", add_noise="enable", positive=link("good"), negative=link("bad"))
    },
    "SamplerCustom": {
        "s": node("SamplerCustom", positive=link("good"), negative=link("bad"), sampler=link("model"))
    },
    "CFGGuider": {
        "g": node("CFGGuider", model=link("model"), positive=link("good"), negative=link("bad"), cfg=4.0),
        "s": node("SamplerCustomAdvanced", guider=link("g"), latent_image=link("model")),
    },
    "DualCFGGuider": {
        "g": node(
            "DualCFGGuider", cond1=link("good"), cond2=link("good"), negative=link("bad"), cfg_conds=8.0
        ),
        "s": node("SamplerCustomAdvanced", guider=link("g"), latent_image=link("model")),
    },
    "combined": {
        "a": node("ConditioningSetArea", conditioning=link("good"), width=8),
        "c": node("ConditioningCombine", conditioning_1=link("a"), conditioning_2=link("good")),
        "d": node("ConditioningConcat", conditioning_to=link("bad"), conditioning_from=link("bad")),
        "e": node("ConditioningAverage", conditioning_to=link("d"), conditioning_from=link("bad")),
        "s": ksampler(positive=link("c"), negative=link("e")),
    },
    "ControlNetApplyAdvanced": {
        "n": node(
            "ControlNetApplyAdvanced", positive=link("good"), negative=link("bad"), image=link("model")
        ),
        "s": ksampler(positive=link("n", 0), negative=link("n", 1)),
    },
    "two ControlNets": {
        "n": node(
            "ControlNetApplyAdvanced", positive=link("good"), negative=link("bad"), image=link("model")
        ),
        "m": node(
            "ControlNetApplyAdvanced", positive=link("n", 0), negative=link("n", 1), image=link("model")
        ),
        "s": ksampler(positive=link("m", 0), negative=link("m", 1)),
    },
    "two samplers": {
        "s": ksampler(),
        "t": ksampler(latent_image=link("s")),
        "d": node("VAEDecode", samples=link("t"), vae=link("model", 2)),
    },
    "a picture of the first sampler guides the second": {
        "s": ksampler(),
        "d": node("VAEDecode", samples=link("s"), vae=link("model", 2)),
        "v": node("CLIPVisionEncode", clip_vision=link("model"), image=link("d")),
        "u": node("unCLIPConditioning", conditioning=link("good"), clip_vision_output=link("v")),
        "t": ksampler(positive=link("u")),
    },
    "rerouted": {"r": node("Reroute", **{"": link("bad")}), "s": ksampler(negative=link("r"))},
    "unknown nodes": {
        "x": node("SomebodysThing", stuff=link("bad"), more=link("model")),
        "y": node("AnotherThing", x=link("x")),
        "s": node("SomebodysSampler", cond_pos=link("good"), cond_neg=link("y")),
    },
    "a pipe": {
        "p": node("ToBasicPipe", model=link("model"), positive=link("good"), negative=link("bad")),
        "f": node("FromBasicPipe", basic_pipe=link("p")),
        "s": ksampler(positive=link("f", 3), negative=link("f", 4)),
    },
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_texts_are_found_behind_every_kind_of_sampler(name: str) -> None:
    assert roles(graph(good=encoder("good"), bad=encoder("bad"), **SAMPLERS[name])) == BOTH


def test_guider_of_a_single_conditioning_makes_a_positive_one() -> None:
    found = graph(
        good=node("CLIPTextEncodeFlux", clip=link("model"), clip_l="left", t5xxl="long", guidance=3.5),
        f=node("FluxGuidance", conditioning=link("good")),
        g=node("BasicGuider", conditioning=link("f")),
        s=node("SamplerCustomAdvanced", guider=link("g")),
    )
    assert roles(found) == {"left": "positive", "long": "positive"}


@pytest.mark.parametrize(
    ("class_type", "fields"),
    [("CLIPTextEncodeSDXL", ("text_g", "text_l")), ("CLIPTextEncodeSD3", ("clip_l", "clip_g", "t5xxl"))],
)
def test_every_text_of_an_encoder_counts(class_type: str, fields: tuple[str, ...]) -> None:
    made = graph(
        good=encoder("good"),
        bad=node(class_type, clip=link("model"), **{name: f"bad {name}" for name in fields}),
        s=ksampler(),
    )
    assert roles(made) == {"good": "positive", **{f"bad {name}": "negative" for name in fields}}


def test_linked_strings_are_followed_to_their_source() -> None:
    made = graph(
        a=node("PrimitiveStringMultiline", value="first"),
        b=node("StringConcatenate", string_a=link("a"), string_b="second", delimiter=" and "),
        c=node("SomebodysStyler", prompt=link("b"), style="third"),
        good=encoder("good"),
        bad=encoder(link("c")),
        s=ksampler(),
    )
    assert {text for text, role in roles(made).items() if role == "negative"} == {
        "first",
        "second",
        " and ",
        "third",
        "first and second",
    }


def test_word_in_two_parts_of_a_concatenation_is_seen_whole() -> None:
    made = graph(
        a=node("PrimitiveString", value="we"),
        b=node("StringConcatenate", string_a=link("a"), string_b="ap", delimiter=""),
        c=node("StringConcatenate", string_a=link("b"), string_b="on", delimiter=""),
        good=encoder(link("c")),
        bad=encoder("bad"),
        s=ksampler(),
    )
    assert roles(made)["weapon"] == "positive"


def test_word_is_seen_whole_behind_a_long_text() -> None:
    made = graph(
        a=node("PrimitiveString", value="word " * 20_000 + "we"),
        b=node("StringConcatenate", string_a=link("a"), string_b="apon", delimiter=""),
        good=encoder(link("b")),
        bad=encoder("bad"),
        s=ksampler(),
    )
    assert any(text.endswith("weapon") for text in roles(made))


def test_concatenations_of_themselves_do_not_grow_without_bound() -> None:
    nodes = {"c0": node("StringConcatenate", string_a="long", string_b="text", delimiter="")}
    for i in range(1, 100):
        nodes[f"c{i}"] = node(
            "StringConcatenate", string_a=link(f"c{i - 1}"), string_b=link(f"c{i - 1}"), delimiter=""
        )
    with pytest.raises(TooMuchText) as caught:
        list(find_texts(graph(**nodes)))
    assert caught.value.node_id in nodes


def test_node_with_many_links_is_gone_through_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node of a chain gives the hub another of its slots a role; the hub has the links that take the time."""
    chain = 200
    nodes = {
        "hub": node("Hub", negative=link("t"), **{f"in{n}": link("t", n) for n in range(10)}),
        "t": encoder("text"),
    }
    for n in range(chain):
        before = {} if n == 0 else {"conditioning": link(f"n{n - 1}")}
        nodes[f"n{n}"] = node("Step", hub=link("hub", n), **before)
    nodes["s"] = ksampler(positive=link(f"n{chain - 1}"), negative=link("t"))
    visits: list[str] = []

    def counted(one: Node) -> Iterator[tuple[str, str, int]]:
        visits.append(one.id)
        return text_links(one)

    monkeypatch.setattr(texts, "text_links", counted)
    assert roles(graph(**nodes))["text"] == "positive"
    assert max(map(visits.count, nodes)) <= 4


def test_text_of_both_kinds_counts_as_positive() -> None:
    made = graph(good=encoder("good"), bad=encoder("bad"), s=ksampler(), t=ksampler(positive=link("bad")))
    assert roles(made) == {"good": "positive", "bad": "positive"}


def test_negative_that_is_wired_to_the_positive_counts_as_positive() -> None:
    made = graph(
        good=encoder("good"),
        bad=encoder("bad"),
        n=node("ControlNetApplyAdvanced", positive=link("good"), negative=link("bad"), image=link("model")),
        s=ksampler(positive=link("n", 1), negative=link("n", 0)),
    )
    assert roles(made)["bad"] == "positive"


@pytest.mark.parametrize("cfg", [0.0, 0, 0.5, ["number", 0]])
def test_negative_that_the_sampler_goes_towards_counts_as_positive(cfg: Any) -> None:
    made = graph(
        good=encoder("good"),
        bad=encoder("bad"),
        number=node("PrimitiveFloat", value=0.0),
        s=ksampler(cfg=cfg),
    )
    assert roles(made)["bad"] == "positive"


def test_conditioning_that_is_zeroed_out_is_no_negative_text() -> None:
    made = graph(
        good=encoder("good"),
        z=node("ConditioningZeroOut", conditioning=link("good")),
        s=ksampler(negative=link("z")),
    )
    assert roles(made) == {"good": "positive"}


def test_texts_without_a_sampler_count_by_the_name_of_their_input() -> None:
    made = graph(
        a=node("SomeServiceNode", prompt="good", negative_prompt="bad", aspect_ratio="wide"),
        b=encoder("alone"),
        c=node("SavesText", filename_prefix="name", lines=["in a list", {"deep": ["deeper"]}]),
    )
    found = roles(made)
    assert found["bad"] == "negative"
    assert {found[text] for text in ("good", "alone", "in a list", "deeper")} == {"positive"}
    assert "name" not in found


def test_files_and_choices_are_no_texts() -> None:
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n" + random.Random(1).randbytes(3000)).decode()
    made = graph(
        i=node("LoadImage", image="gun.png"),
        l=node("LoraLoader", lora_name="gun.safetensors"),
        s=node("KSampler", sampler_name="gun", scheduler="gun"),
        b=node("LoadBase64", data=png, uri=f"data:image/png;base64,{png}"),
    )
    assert list(find_texts(made)) == []


@pytest.mark.parametrize("text", ["AAAA,holding_gun," + "tag," * 99, "/9j/" + "a/gun/" * 99, "AAAA a gun"])
def test_prompt_does_not_pass_for_a_file(text: str) -> None:
    assert roles(graph(good=encoder(text))) == {text: "positive"}


def test_catalogue_tells_choices_from_texts() -> None:
    info = {
        "Thing": {
            "input": {
                "required": {
                    "flavour": [["mild", "hot"]],
                    "subject_name": ["STRING", {}],
                    "kind": ["COMBO", {}],
                }
            },
            "output": ["IMAGE"],
        }
    }
    made = graph(t=node("Thing", flavour="mild", subject_name="a man", kind="x"))
    assert set(roles(made, Catalog(info))) == {"a man"}
    assert set(roles(made)) == {"mild", "x"}


def test_deep_graphs_and_circles_end() -> None:
    nodes: Graph = {"0": encoder("deep")}
    for i in range(1, 5000):
        nodes[str(i)] = node("ConditioningSetArea", conditioning=link(str(i - 1)))
    nodes["s"] = ksampler(positive=link("4999"), negative=link("missing"))
    assert roles(graph(**nodes)) == {"deep": "positive"}
    circle = {"a": node("X", c=link("b"), text="round"), "b": node("X", c=link("a"))}
    assert roles(Workflow({**circle, "s": node("KSampler", negative=link("a"))})) == {"round": "negative"}


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("positive", Role.POSITIVE),
        ("negative", Role.NEGATIVE),
        ("negative_prompt", Role.NEGATIVE),
        ("text_neg", Role.NEGATIVE),
        ("negativePrompt", Role.NEGATIVE),
        ("uncond", Role.NEGATIVE),
        ("pos", Role.POSITIVE),
        ("position", None),
        ("negotiate", None),
        ("conditioning", None),
        ("", None),
    ],
)
def test_role_is_in_the_name_of_an_input(name: str, role: Role | None) -> None:
    assert named_role(name) is role


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_workflows_say_the_same_with_and_without_a_catalogue(file: Path) -> None:
    workflow = Workflow.parse(json.loads(file.read_text()))
    info = json.loads((Path(__file__).parents[2] / "golden/library/object_info.json").read_text())
    assert roles(workflow, Catalog(info)) == roles(workflow)
