"""An embedded engine that speaks ComfyUI's HTTP and WebSocket protocol: `python -m comfyui.simulator --port N`.

It behaves like ComfyUI 0.3.64 over real sockets, executes the image nodes that need no model, draws a stand-in where
a model would be needed, and produces faults on request. It shares no code with the agent and imports nothing of it.

A request passes `server` (routes), `validation`, `queue`, the one `worker` thread, `executor` with `graph`, `cache`
and `nodes`, and comes back as events through `progress` and `sockets`, as an entry in `history`, as `files`.
"""

VERSION = "0.3.64"
"""The ComfyUI version whose behaviour is copied."""

NOTICE = (
    "This is the embedded simulator, not ComfyUI: sampler nodes draw a stand-in picture from seed and prompt text, "
    "no model is loaded."
)
"""Where a person could mistake a simulated picture for a real one, this sentence stands beside it."""
