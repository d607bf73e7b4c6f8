"""Custom nodes for a real ComfyUI, like the Lab nodes of the simulator: what stock nodes cannot be made to do
without models: step progress, blocked execution, expansion, odd `ui`, failure, delay."""

# ruff: noqa: N802, RUF012 - ComfyUI's own way to describe a node

import time

import comfy.utils
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder


class Lab:
    CATEGORY, FUNCTION, RETURN_TYPES = "lab", "run", ("IMAGE",)
    MORE: dict = {}

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), **cls.MORE}}


class LabSteps(Lab):
    MORE = {
        "steps": ("INT", {"default": 3, "min": 1, "max": 1000}),
        "seconds": ("FLOAT", {"default": 0.1, "min": 0.0, "max": 60.0}),
    }

    def run(self, image, steps, seconds):
        bar = comfy.utils.ProgressBar(steps)
        for _ in range(steps):
            time.sleep(seconds)
            bar.update(1)
        return (image,)


class LabBlock(Lab):
    MORE = {"text": ("STRING", {"default": ""})}

    def run(self, image, text):
        return (ExecutionBlocker(text or None),)


class LabExpand(Lab):
    def run(self, image):
        graph = GraphBuilder()
        inverted = graph.node("ImageInvert", image=image)
        graph.node("PreviewImage", images=inverted.out(0))
        return {"result": (inverted.out(0),), "expand": graph.finalize()}


class LabOutput(Lab):
    OUTPUT_NODE = True

    def run(self, image):
        gif = {"filename": "x.gif", "subfolder": "", "type": "output", "format": "image/gif"}
        return {
            "ui": {"gifs": [gif], "numbers": [1, 2.5], "text": ["a", "b"], "empty": []},
            "result": (image,),
        }


class LabRaise(Lab):
    MORE = {"message": ("STRING", {"default": "raised on purpose"})}

    def run(self, image, message):
        raise RuntimeError(message)


class LabSleep(Lab):
    MORE = {"seconds": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 3600.0})}

    def run(self, image, seconds):
        time.sleep(seconds)
        return (image,)


NODE_CLASS_MAPPINGS = {c.__name__: c for c in (LabSteps, LabBlock, LabExpand, LabOutput, LabRaise, LabSleep)}
