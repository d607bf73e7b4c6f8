"""A folder of named workflows and a table of models that lead to them, for tests of facades."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.integration.agent import graphs
from tests.integration.agent.graphs import Graph, chain, node, preview


def parameter(kind: str, sets: str, **more: Any) -> dict[str, Any]:
    return {"title": sets, "type": kind, "sets": sets, **more}


def workflows(sleep_seconds: float) -> dict[str, tuple[Graph, dict[str, Any]]]:
    """Name -> graph and parameters; the slow ones sleep for so long. Each call gives graphs whose results no engine has in its cache."""
    return {
        "slow": (
            chain(graphs.empty(), node("LabSleep", image=..., seconds=sleep_seconds), preview()),
            {"seconds": parameter("number", "2.seconds"), "color": parameter("integer", "1.color")},
        ),
        "long": (
            chain(graphs.empty(), node("LabSteps", image=..., steps=1000, seconds=0.02), preview()),
            {"color": parameter("integer", "1.color")},
        ),
        "fails-late": (
            chain(
                graphs.empty(),
                node("LabSleep", image=..., seconds=sleep_seconds),
                node("LabRaise", "Troublemaker", image=..., message="raised on purpose"),
                preview(),
            ),
            {"color": parameter("integer", "1.color")},
        ),
        "speak": (
            {
                "1": node("StringConcatenate", string_a="", string_b="You said: ", delimiter=""),
                "2": node("StringConcatenate", string_a=["1", 0], string_b="", delimiter=""),
                "3": node("PreviewAny", source=["2", 0]),
            },
            {"prompt": parameter("text", "2.string_b")},
        ),
        "translate": (
            {
                "1": node("StringConcatenate", string_a="", string_b="", delimiter=">"),
                "2": node("StringConcatenate", string_a=["1", 0], string_b="", delimiter=": "),
                "3": node("PreviewAny", source=["2", 0]),
            },
            {
                "source_lang": parameter("string", "1.string_a", default="en"),
                "target_lang": parameter("string", "1.string_b"),
                "text": parameter("text", "2.string_b"),
            },
        ),
        "classify": (
            {
                "1": node("LoadImage", image=""),
                "2": node(
                    "PreviewAny", source='[{"label": "CAT", "score": 0.75}, {"label": "DOG", "score": 0.25}]'
                ),
                "3": node("PreviewImage", images=["1", 0]),
            },
            {"picture": parameter("image", "1.image")},
        ),
        "no-labels": ({"1": node("PreviewAny", source="a cat")}, {}),
    }


MODELS: dict[str, Any] = {
    "slow": {"workflow": "slow", "answer": "json"},
    "long": {"workflow": "long", "answer": "json"},
    "fails-late": {"workflow": "fails-late", "answer": "json"},
    "@cf/meta/llama": {"workflow": "speak", "answer": "response"},
    "@cf/meta/m2m100": {"workflow": "translate", "answer": "translation"},
    "@cf/microsoft/resnet-50": {"edit": "classify", "answer": "labels"},
    "no-labels": {"workflow": "no-labels", "answer": "labels"},
    "nowhere": {"workflow": "there-is-none"},
    "misspelt": {"workflow": "text-to-image", "values": {"stepps": 4}},
    "no-file": {"workflow": "text-to-image", "values": {"checkpoint": "nobody-has-this.safetensors"}},
    "blend": {"edit": "blend", "inpaint": "merge-by-mask"},
    "dall-e-2": {"edit": "blend", "inpaint": "merge-by-mask"},
    "wild-*": {"workflow": "slow"},
    "dall-e-3": None,
}


def settings(folder: Path, sleep_seconds: float = 0.5) -> dict[str, Any]:
    """What an agent needs to have these workflows and models."""
    for name, (graph, parameters) in workflows(sleep_seconds).items():
        (folder / f"{name}.json").write_text(json.dumps(graph))
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"title": name, "parameters": parameters}))
    table = folder / "models.yaml"
    table.write_text(yaml.safe_dump(MODELS))
    return {"workflows_dir": str(folder), "models": str(table)}
