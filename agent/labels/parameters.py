"""The generation parameters of a picture as one text, in the form that AUTOMATIC1111's web UI began with and that
picture viewers and galleries read: the prompt, `Negative prompt: ...`, then a line of `Name: value` with commas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from agent.safety.prompts.texts import Role, TooMuchText, find_texts
from comfyui.workflow import Node, Workflow, is_link

#: Of the PNG text.
KEYWORD = "parameters"

#: What a sampler is told, and by which inputs; of the sampler itself or of what is plugged into it.
FACTS = {
    "Steps": ("steps",),
    "Sampler": ("sampler_name",),
    "Schedule type": ("scheduler",),
    "CFG scale": ("cfg",),
    "Distilled CFG Scale": ("guidance",),
    "Seed": ("seed", "noise_seed"),
    "Denoising strength": ("denoise",),
}

#: What is plugged into the samplers that consist of several nodes.
PLUGS = ("noise", "guider", "sampler", "sigmas")

#: Inputs with the name of a model's file.
MODEL_FILES = ("ckpt_name", "unet_name", "model_name", "gguf_name")

#: What is told at most, since it is written into each of the files: characters of a prompt, what it is joined of, and
#: characters of a fact that is text.
LONGEST_PROMPT, MOST_TEXTS, LONGEST_FACT = 32_000, 100, 200

#: Inputs of samplers and guiders that bring what they are guided by.
GUIDES = ("positive", "negative", "conditioning")

#: Inputs of a constant's node, one of which it gives on.
CONSTANTS = ("value", "seed", "noise_seed", "int", "float", "string", "number")


def parameters_text(workflow: Workflow, node_id: str, size: tuple[int, int]) -> str | None:
    """The parameters of the sampler that an output node's pictures come from; of several in a row, the last. `size`:
    of the picture, where the graph does not say with which size it was sampled. None where there is no sampler."""
    sampler = _find_sampler(workflow, node_id)
    if sampler is None:
        return None
    parts = [sampler, *_plugged(workflow, sampler)]
    positive, negative = _prompts(workflow, parts)
    conditions = [n for n in _upstream(workflow, sampler) if "guidance" in n.inputs]
    facts = {
        label: value
        for label, names in FACTS.items()
        if (value := _first_value(workflow, [*parts, *conditions], names)) is not None
    }
    if facts.get("Denoising strength") == 1:
        del facts["Denoising strength"]
    width, height = _latent_size(workflow, sampler) or size
    facts["Size"] = f"{width}x{height}"
    if model := _model(workflow, parts):
        facts["Model"] = model
    facts["Version"] = "ComfyUI"
    lines = [positive] if positive else []
    if negative:
        lines.append(f"Negative prompt: {negative}")
    lines.append(", ".join(f"{label}: {value}" for label, value in facts.items()))
    return "\n".join(lines)


def _find_sampler(workflow: Workflow, node_id: str) -> Node | None:
    origin = workflow.origin(node_id)
    if origin is None:
        return None
    found = [
        node
        for node in _upstream(workflow, workflow.nodes[origin])
        if node.is_sampler and {name for name, _ in node.links()} & {"positive", "guider", "latent_image"}
    ]
    # One that adds no noise, such as a refiner, goes on with what another one has begun with seed and model.
    begun = [node for node in found if node.inputs.get("add_noise") != "disable"]
    return next(iter(begun or found), None)


def _upstream(workflow: Workflow, node: Node) -> Iterator[Node]:
    """The node and all before it, nearest first."""
    found, waiting = {node.id}, [node]
    for current in waiting:
        yield current
        for _, source in current.links():
            if source not in found:
                found.add(source)
                waiting.append(workflow.nodes[source])


def _plugged(workflow: Workflow, node: Node) -> list[Node]:
    """What the node consists of besides itself, each once, in the order of the inputs."""
    found, waiting = {node.id: node}, [node]
    while waiting:
        current = waiting.pop()
        found.setdefault(current.id, current)
        plugs = [source for name, source in current.links() if name in PLUGS and source not in found]
        waiting += [workflow.nodes[source] for source in reversed(plugs)]
    return list(found.values())[1:]


def _prompts(workflow: Workflow, parts: list[Node]) -> tuple[str, str]:
    """What the sampler is guided by: the prompt, and the negative prompt. Those of an earlier pass do not count."""
    guides: dict[str, dict[str, Any]] = {}
    for node in parts:
        links = {name: value for name, value in node.inputs.items() if name in GUIDES and is_link(value)}
        if "positive" not in links and "conditioning" in links:  # of a guider without a negative
            links["positive"] = links.pop("conditioning")
        guides[node.id] = {"class_type": node.class_type, "inputs": links}
    sources = [link[0] for guide in guides.values() for link in guide["inputs"].values()]
    before = workflow.upstream(sources)
    graph = {node_id: node for node_id, node in workflow.graph.items() if node_id in before}
    try:
        texts = list(find_texts(Workflow({**graph, **guides})))
    except TooMuchText:
        return "", ""
    positive = [text.value.strip() for text in texts if Role.POSITIVE in text.roles]
    negative = [text.value.strip() for text in texts if text.is_negative]
    return _join(positive), _join(negative)


def _join(texts: list[str]) -> str:
    """Without those that are parts of others: many nodes take a short and a long text of the same thing, and what is
    put together is there as a whole too."""
    found = list(dict.fromkeys(texts))[:MOST_TEXTS]
    joined = ", ".join(text for text in found if not any(text != other and text in other for other in found))
    return joined if len(joined) <= LONGEST_PROMPT else joined[: LONGEST_PROMPT - 1] + "…"


def _first_value(workflow: Workflow, nodes: list[Node], names: tuple[str, ...]) -> Any:
    """The first of these inputs that has a value, also one that comes from a constant's node."""
    for node in nodes:
        for name in names:
            value = node.inputs.get(name)
            if (source := _source(workflow, value)) is not None:
                value = next((source.inputs[n] for n in (name, *CONSTANTS) if n in source.inputs), None)
            if isinstance(value, str):
                return " ".join(value[:LONGEST_FACT].split())
            if isinstance(value, int | float) and not isinstance(value, bool):
                return value
    return None


def _latent_size(workflow: Workflow, sampler: Node) -> tuple[int, int] | None:
    node = _source(workflow, sampler.inputs.get("latent_image"))
    sides = [_first_value(workflow, [node], (side,)) for side in ("width", "height")] if node else []
    return (sides[0], sides[1]) if sides and all(isinstance(side, int) for side in sides) else None


def _model(workflow: Workflow, parts: list[Node]) -> str | None:
    """The file that the model comes from, without folder and ending; patches of it are passed over."""
    link = next((node.inputs["model"] for node in parts if is_link(node.inputs.get("model"))), None)
    seen: set[str] = set()
    while (node := _source(workflow, link)) is not None and node.id not in seen:
        seen.add(node.id)
        for name in MODEL_FILES:
            if isinstance(file := node.inputs.get(name), str):
                return " ".join(PurePosixPath(file.replace("\\", "/")).stem[:LONGEST_FACT].split())
        link = node.inputs.get("model")
    return None


def _source(workflow: Workflow, link: Any) -> Node | None:
    """The node that a link comes from; None for what is no link."""
    return workflow.nodes[link[0]] if is_link(link) else None
