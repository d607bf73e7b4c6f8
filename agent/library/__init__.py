"""Named workflows: a graph in ComfyUI's API format, and a manifest that says what a caller may set in it."""
