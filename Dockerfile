# syntax=docker/dockerfile:1
# ComfyUI with the agent in front of it, for a GPU instance. Stages and layers stand in the order in which they change.
#
#   docker build -t comfyui-agent .
#   docker run --gpus all -p 9000:9000 -v /path/to/models:/mnt/models comfyui-agent
#
# The agent and ComfyUI have a virtual environment each: custom nodes pin aiohttp, pydantic and Pillow at will.

ARG CUDA_IMAGE=nvidia/cuda:12.8.1-base-ubuntu24.04

# The wheels of PyTorch bring the CUDA libraries, and the platform brings the driver: the small "base" image will do.
FROM ${CUDA_IMAGE} AS base
ENV DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# util-linux has setpriv, by which ComfyUI dies with the agent; tini reaps what custom nodes leave behind.
# libgl1 and libglib2.0-0 are what OpenCV, which many custom nodes import, needs.
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv tini util-linux ca-certificates libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

# ComfyUI at a tag, with PyTorch for the CUDA version of the base image.
FROM base AS comfyui
ARG COMFYUI_VERSION=v0.3.64
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu128
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
RUN git clone --depth 1 --branch "${COMFYUI_VERSION}" https://github.com/comfyanonymous/ComfyUI.git /opt/ComfyUI \
    && rm -rf /opt/ComfyUI/.git
RUN python3 -m venv /opt/ComfyUI/.venv \
    && /opt/ComfyUI/.venv/bin/pip install torch torchvision torchaudio --index-url "${TORCH_INDEX}" \
    && /opt/ComfyUI/.venv/bin/pip install -r /opt/ComfyUI/requirements.txt
# Custom nodes as "URL@REVISION URL@REVISION ...": pinned, since they run with everything that ComfyUI may do.
ARG CUSTOM_NODES=""
RUN set -eu; for node in ${CUSTOM_NODES}; do \
        url="${node%@*}"; folder="/opt/ComfyUI/custom_nodes/$(basename "${url}" .git)"; \
        git clone "${url}" "${folder}" && git -C "${folder}" checkout --detach "${node##*@}" && rm -rf "${folder}/.git"; \
        if [ -f "${folder}/requirements.txt" ]; then /opt/ComfyUI/.venv/bin/pip install -r "${folder}/requirements.txt"; fi; \
    done

FROM base AS agent
COPY requirements.lock /src/
RUN python3 -m venv /opt/agent && /opt/agent/bin/pip install --require-hashes -r /src/requirements.lock
COPY pyproject.toml README.md LICENSE /src/
COPY workflows /src/workflows
COPY comfyui /src/comfyui
COPY agent /src/agent
RUN /opt/agent/bin/pip install --no-deps /src

FROM base AS engine
COPY --from=comfyui /opt/ComfyUI /opt/ComfyUI
COPY deploy/extra_model_paths.yaml /opt/
COPY --from=agent /opt/agent /opt/agent
ENV COMFYUI_ROOT=/opt/ComfyUI \
    COMFYUI_ARGS="--extra-model-paths-config /opt/extra_model_paths.yaml" \
    PATH=/opt/agent/bin:$PATH
EXPOSE 9000
# True while the engine starts: an instance that still loads a model must not be killed for it. False once it is given up.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["/opt/agent/bin/python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + (os.environ.get('AGENT_PORT') or os.environ.get('FC_CUSTOM_LISTEN_PORT') or '9000') + '/healthz', timeout=2)"]
ENTRYPOINT ["tini", "--", "comfyui-agent"]
CMD ["serve"]
