"""Ready workflows in ComfyUI API format."""
