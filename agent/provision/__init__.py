"""Puts models and custom nodes in place, at image build or on a shared disk: `comfyui-agent provision`."""
