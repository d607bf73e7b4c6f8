"""Those of ComfyUI's routes that a stranger may be let to: they read, or upload an input file."""

from __future__ import annotations

#: Route -> method. ComfyUI has many more; these neither change its queue nor its memory.
HARMLESS = {
    "/view": "GET",
    "/upload/image": "POST",
    "/upload/mask": "POST",
    "/object_info": "GET",
    "/object_info/{node_class}": "GET",
    "/models": "GET",
    "/models/{folder}": "GET",
    "/embeddings": "GET",
    "/system_stats": "GET",
    "/features": "GET",
}
