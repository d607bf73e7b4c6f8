"""Write a tiny random-weight checkpoint that a stock ComfyUI really loads and samples with.

    python make_tiny_model.py OUT.safetensors [--seed N] [--depth N] [--dtype f16|f32]

The file is about 9 MB (f16).  It has three parts:

* ``model.diffusion_model.*``: an SD3-style multimodal diffusion transformer.  ComfyUI reads the
  number of blocks from the patch embedder (width // 64), so depth 2 means width 128.
* ``first_stage_model.taesd_{encoder,decoder}.*``: a 16-channel "tiny autoencoder" as the VAE,
  so VAEDecode/VAEEncode work and cost almost nothing.
* ``text_encoders.none``: one dummy tensor.  With no real text encoder weights the SD3 text encoder
  yields all-zero conditioning, so CLIPTextEncode works (every text gives the same zeros).

Put it in models/checkpoints and load it with CheckpointLoaderSimple: the outputs MODEL, CLIP and
VAE all work with CLIPTextEncode, KSampler, VAEDecode, VAEEncode on a CPU, in seconds.  The images
are noise.  Needs only numpy.
"""

import argparse
import json
import struct
from pathlib import Path

import numpy as np

LATENT_CHANNELS = 16  # SD3 latents
CONTEXT_WIDTH = 4096  # width of SD3 text conditioning
POOLED_WIDTH = 2048  # width of the SD3 pooled text vector
FREQUENCIES = 256  # width of the sinusoidal timestep embedding
PATCH = 2


def linear(shapes, name, n_in, n_out, bias=True):
    shapes[name + ".weight"] = (n_out, n_in)
    if bias:
        shapes[name + ".bias"] = (n_out,)


def conv(shapes, name, n_in, n_out, size=3, bias=True):
    shapes[name + ".weight"] = (n_out, n_in, size, size)
    if bias:
        shapes[name + ".bias"] = (n_out,)


def transformer(depth):
    shapes = {}
    width = 64 * depth
    conv(shapes, "x_embedder.proj", LATENT_CHANNELS, width, PATCH)
    linear(shapes, "t_embedder.mlp.0", FREQUENCIES, width)
    linear(shapes, "t_embedder.mlp.2", width, width)
    linear(shapes, "y_embedder.mlp.0", POOLED_WIDTH, width)
    linear(shapes, "y_embedder.mlp.2", width, width)
    linear(shapes, "context_embedder", CONTEXT_WIDTH, width)
    for block in range(depth):
        for side in ("context_block", "x_block"):
            at = f"joint_blocks.{block}.{side}."
            short = side == "context_block" and block == depth - 1
            linear(shapes, at + "adaLN_modulation.1", width, (2 if short else 6) * width)
            linear(shapes, at + "attn.qkv", width, 3 * width)
            if not short:
                linear(shapes, at + "attn.proj", width, width)
                linear(shapes, at + "mlp.fc1", width, 4 * width)
                linear(shapes, at + "mlp.fc2", 4 * width, width)
    linear(shapes, "final_layer.linear", width, PATCH * PATCH * LATENT_CHANNELS)
    linear(shapes, "final_layer.adaLN_modulation.1", width, 2 * width)
    return shapes


def tiny_autoencoder():
    """The layer numbers are those of the two nn.Sequential stacks; the gaps have no weights."""
    shapes = {}

    def block(side, at):
        for i in (0, 2, 4):
            conv(shapes, f"{side}.{at}.conv.{i}", 64, 64)

    conv(shapes, "taesd_encoder.0", 3, 64)
    block("taesd_encoder", 1)
    at = 2
    for _ in range(3):
        conv(shapes, f"taesd_encoder.{at}", 64, 64, bias=False)
        for i in range(3):
            block("taesd_encoder", at + 1 + i)
        at += 4
    conv(shapes, f"taesd_encoder.{at}", 64, LATENT_CHANNELS)

    conv(shapes, "taesd_decoder.1", LATENT_CHANNELS, 64)
    at = 3
    for _ in range(3):
        for i in range(3):
            block("taesd_decoder", at + i)
        conv(shapes, f"taesd_decoder.{at + 4}", 64, 64, bias=False)
        at += 5
    block("taesd_decoder", at)
    conv(shapes, f"taesd_decoder.{at + 1}", 64, 3)
    return shapes


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("out")
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--depth", type=int, default=2)
    ask.add_argument("--dtype", choices=("f16", "f32"), default="f16")
    args = ask.parse_args()
    random = np.random.default_rng(args.seed)
    kind, label = {"f16": (np.float16, "F16"), "f32": (np.float32, "F32")}[args.dtype]

    tensors = {}
    parts = (("model.diffusion_model.", transformer(args.depth)), ("first_stage_model.", tiny_autoencoder()))
    for prefix, shapes in parts:
        for name, shape in shapes.items():
            if name.endswith(".bias"):
                value = np.zeros(shape)
            else:
                value = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
            tensors[prefix + name] = value.astype(kind)
    last = max(
        (n for n in tensors if n.startswith("first_stage_model.taesd_decoder.") and n.count(".") == 3),
        key=lambda n: int(n.split(".")[2]),
    ).rpartition(".")[0]
    # Spread the pixels around mid grey instead of black: its inputs are all >= 0.
    tensors[last + ".weight"] -= tensors[last + ".weight"].mean(axis=(1, 2, 3), keepdims=True)
    tensors[last + ".weight"] *= kind(4)
    tensors[last + ".bias"] += kind(0.5)
    tensors["first_stage_model.vae_scale"] = np.ones((), kind)
    tensors["first_stage_model.vae_shift"] = np.zeros((), kind)
    tensors["text_encoders.none"] = np.zeros((1,), kind)

    header, at = {}, 0
    for name, value in tensors.items():
        header[name] = {"dtype": label, "shape": list(value.shape), "data_offsets": [at, at + value.nbytes]}
        at += value.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with Path(args.out).open("wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for value in tensors.values():
            f.write(value.tobytes())
    print(f"{args.out}: {len(tensors)} tensors, {8 + len(text) + at} bytes")


if __name__ == "__main__":
    main()
