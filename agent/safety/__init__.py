"""Keeps what must not be made or shown from being made or shown: prompts before the GPU, pictures after it."""
