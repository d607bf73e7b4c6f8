"""Everything that speaks ComfyUI's protocol. Knows nothing of tasks, Redis or our own HTTP routes."""
