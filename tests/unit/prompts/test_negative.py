"""What is added to negative texts, and where it is better left alone."""

from __future__ import annotations

from functools import partial
from typing import Any

from agent.safety.prompts import negative
from agent.safety.prompts.negative import Addition, split_terms
from comfyui.workflow import Workflow
from tests.unit.prompts.test_texts import encoder, graph, ksampler, link, node

TERMS = ["watermark", "text", "手枪"]

add_negative = partial(negative.add_negative, most=1000)


def text_of(workflow: Workflow, node_id: str, name: str = "text") -> Any:
    return workflow.graph[node_id]["inputs"][name]


def test_missing_terms_are_added_to_the_negative_text() -> None:
    before = graph(good=encoder("good"), bad=encoder("Blurry, (Ｗatermark:1.2),"), s=ksampler())
    after, additions = add_negative(before, TERMS)
    assert text_of(after, "bad") == "Blurry, (Ｗatermark:1.2), text, 手枪"
    assert text_of(after, "good") == "good"
    assert additions == [Addition("bad", "text", ("text", "手枪"))]
    assert text_of(before, "bad") == "Blurry, (Ｗatermark:1.2),"


def test_adding_twice_adds_once() -> None:
    after, _ = add_negative(graph(good=encoder("good"), bad=encoder(""), s=ksampler()), TERMS)
    assert text_of(after, "bad") == "watermark, text, 手枪"
    again, additions = add_negative(after, TERMS)
    assert again is after
    assert additions == []


def test_every_sampler_gets_them_and_a_shared_negative_once() -> None:
    made = graph(
        good=encoder("good"),
        bad=encoder("bad"),
        other=encoder("other"),
        s=ksampler(),
        t=ksampler(),
        u=ksampler(negative=link("other")),
    )
    after, additions = add_negative(made, ["text"])
    assert (text_of(after, "bad"), text_of(after, "other")) == ("bad, text", "other, text")
    assert len(additions) == 2


def test_linked_text_is_changed_at_its_source() -> None:
    made = graph(
        a=node("PrimitiveString", value="ugly"),
        b=node("PrimitiveString", value="blurry"),
        c=node("StringConcatenate", string_a=link("a"), string_b=link("b"), delimiter=", "),
        good=encoder("good"),
        bad=encoder(link("c")),
        s=ksampler(),
    )
    after, additions = add_negative(made, ["ugly", "text"])
    assert (text_of(after, "a", "value"), text_of(after, "b", "value")) == ("ugly", "blurry, text")
    assert text_of(after, "c", "delimiter") == ", "
    assert additions == [Addition("b", "value", ("text",))]


def test_source_of_a_positive_too_is_left_alone_and_told_of() -> None:
    made = graph(
        a=node("PrimitiveString", value="shared"),
        good=encoder(link("a")),
        bad=encoder(link("a")),
        s=ksampler(),
    )
    after, additions = add_negative(made, TERMS)
    assert after is made
    assert additions == [Addition("a", "value", is_shared=True)]


def test_encoder_of_several_texts_gets_them_in_each() -> None:
    bad = node("CLIPTextEncodeSDXL", clip=link("model"), text_g="one", text_l="two", width=8)
    after, _ = add_negative(graph(good=encoder("good"), bad=bad, s=ksampler()), ["text"])
    assert (text_of(after, "bad", "text_g"), text_of(after, "bad", "text_l")) == ("one, text", "two, text")


def test_text_behind_a_control_net_gets_them_and_the_positive_does_not() -> None:
    made = graph(
        good=encoder("good"),
        bad=encoder("bad"),
        n=node("ControlNetApplyAdvanced", positive=link("good"), negative=link("bad"), image=link("model")),
        s=ksampler(positive=link("n", 0), negative=link("n", 1)),
    )
    after, _ = add_negative(made, ["text"])
    assert (text_of(after, "good"), text_of(after, "bad")) == ("good", "bad, text")


def test_sampler_without_a_negative_text_is_left_alone() -> None:
    flux = graph(
        good=encoder("good"),
        f=node("FluxGuidance", conditioning=link("good")),
        g=node("BasicGuider", conditioning=link("f")),
        s=node("SamplerCustomAdvanced", guider=link("g")),
    )
    zeroed = graph(
        good=encoder("good"),
        z=node("ConditioningZeroOut", conditioning=link("good")),
        s=ksampler(negative=link("z")),
    )
    for made in (flux, zeroed):
        after, additions = add_negative(made, TERMS)
        assert after is made
        assert additions == []


def test_node_with_a_negative_text_of_its_own_gets_them() -> None:
    made = graph(a=node("SomeServiceNode", prompt="good", negative_prompt=""))
    after, _ = add_negative(made, ["text"])
    assert text_of(after, "a", "negative_prompt") == "text"
    assert text_of(after, "a", "prompt") == "good"


def test_setting_is_split_at_commas_and_each_term_counts_once() -> None:
    assert split_terms("text, Ｔext,, (text:1.3)，水印") == ["text", "水印"]


def test_terms_are_added_without_a_look_to_a_text_that_is_too_long_for_one() -> None:
    long = "text, " * 200
    after, additions = add_negative(graph(good=encoder("good"), bad=encoder(long), s=ksampler()), ["text"])
    assert additions == [Addition("bad", "text", ("text",))]
    assert text_of(after, "bad") == long + "text"


def test_texts_behind_a_thicket_of_links_are_given_up_and_told_of() -> None:
    """Nodes that are all linked to each other, and as many encoders, took time by the fourth power of their number."""
    count = 150
    nodes = {
        f"n{i}": node("Mix", **{f"in{j}": link(f"n{j}") for j in range(i + 1, count)}) for i in range(count)
    }
    nodes[f"n{count - 1}"]["inputs"]["text"] = "bad"
    for i in range(count):
        nodes[f"e{i}"] = node("Encode", clip=link("model"), **{f"t{j}": link(f"n{j}") for j in range(count)})
    nodes["model"] = node("Loader")
    nodes["s"] = node("Sampler", **{f"negative_{i}": link(f"e{i}") for i in range(count)})
    after, additions = add_negative(Workflow.parse(nodes), ["ugly"])
    assert additions[0] == Addition(f"n{count - 1}", "text", ("ugly",))
    assert text_of(after, f"n{count - 1}") == "bad, ugly"
    assert not any(addition.terms or addition.is_shared for addition in additions[1:])
    assert additions[1:]
