# syntax=docker/dockerfile:1
# ComfyUI with the agent in front of it, for a GPU instance; and the front, without ComfyUI and CUDA, for a CPU instance.
#
#   docker build -t comfyui-agent .
#   docker run --gpus all -p 9000:9000 -v /path/to/models:/mnt/models comfyui-agent
#   docker build -t comfyui-agent-front --target front .
#
# Layers stand in the order in which they change: system, PyTorch, ComfyUI, custom nodes, models, agent. The agent and
# ComfyUI have a virtual environment each: custom nodes pin aiohttp, pydantic and Pillow at will.

# With the libraries of the CUDA toolkit, for custom nodes that bring code of their own and expect them. PyTorch's wheels
# bring what PyTorch needs: where no custom node wants more, the "base" flavour saves some gigabytes:
#   --build-arg CUDA_IMAGE=nvidia/cuda:12.8.1-base-ubuntu24.04
ARG CUDA_IMAGE=nvidia/cuda:12.8.1-runtime-ubuntu24.04
# Without CUDA, but with the same Python: both images take the agent from one stage.
ARG PLAIN_IMAGE=ubuntu:24.04

FROM ${PLAIN_IMAGE} AS plain
ENV DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# tini passes signals on and reaps what the agent's children leave behind; util-linux has setpriv, which ties children to it.
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv tini util-linux ca-certificates \
    && rm -rf /var/lib/apt/lists/*

FROM plain AS agent
COPY requirements.lock /src/
RUN python3 -m venv /opt/agent && /opt/agent/bin/pip install --require-hashes -r /src/requirements.lock
COPY pyproject.toml README.md LICENSE /src/
COPY workflows /src/workflows
COPY comfyui /src/comfyui
COPY agent /src/agent
RUN /opt/agent/bin/pip install --no-deps /src
# What only some deployments need: --build-arg EXTRAS=onnx,aws,c2pa,otel, in the versions of the lock file.
ARG EXTRAS=""
COPY requirements-dev.lock /src/
RUN if [ -n "${EXTRAS}" ]; then \
        grep -E '^[A-Za-z0-9].*==' /src/requirements-dev.lock | sed 's/ *\\$//' > /src/versions.txt \
        && /opt/agent/bin/pip install -c /src/versions.txt "/src[${EXTRAS}]"; \
    fi

# The CPU image. On a laptop it also runs the agent on its embedded simulator: `docker run IMAGE serve`.
FROM plain AS front
COPY --from=agent /opt/agent /opt/agent
ENV PATH=/opt/agent/bin:$PATH
EXPOSE 9000
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/opt/agent/bin/python", "-m", "agent.healthcheck"]
ENTRYPOINT ["tini", "--", "comfyui-agent"]
CMD ["serve", "--role", "front"]

# ComfyUI's source at a tag, and custom nodes as "URL@REVISION URL@REVISION ...": pinned, since they may do everything
# that ComfyUI may do.
FROM plain AS sources
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
ARG COMFYUI_VERSION=v0.3.64
RUN git clone --depth 1 --branch "${COMFYUI_VERSION}" https://github.com/comfyanonymous/ComfyUI.git /sources/ComfyUI \
    && rm -rf /sources/ComfyUI/.git
ARG CUSTOM_NODES=""
RUN set -eu; mkdir /sources/custom_nodes; for node in ${CUSTOM_NODES}; do \
        url="${node%@*}"; folder="/sources/custom_nodes/$(basename "${url}" .git)"; \
        git clone "${url}" "${folder}" && git -C "${folder}" checkout --detach "${node##*@}" && rm -rf "${folder}/.git"; \
    done

# Models that shall be part of the image: those of a manifest, which as it stands names none. A token that a manifest
# needs comes as a secret: `--secret id=HF_TOKEN,env=HF_TOKEN`; it stays out of every layer.
FROM agent AS models
ARG MANIFEST=deploy/models.yaml
COPY ${MANIFEST} /opt/models.yaml
RUN --mount=type=secret,id=HF_TOKEN,env=HF_TOKEN \
    mkdir /models && /opt/agent/bin/comfyui-agent provision /opt/models.yaml --models /models

# The GPU image. The platform brings the driver.
FROM ${CUDA_IMAGE} AS engine
ENV DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# libgl1 and libglib2.0-0 are what OpenCV, which many custom nodes import, needs.
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv tini util-linux ca-certificates libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
# PyTorch for the CUDA version of the base image: a layer of some gigabytes that need not be pushed again with ComfyUI.
ARG TORCH="torch==2.8.0 torchvision==0.23.0 torchaudio==2.8.0"
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu128
RUN python3 -m venv /opt/ComfyUI/.venv && /opt/ComfyUI/.venv/bin/pip install ${TORCH} --index-url "${TORCH_INDEX}"
COPY --from=sources /sources/ComfyUI /opt/ComfyUI
RUN /opt/ComfyUI/.venv/bin/pip install -r /opt/ComfyUI/requirements.txt
COPY --from=sources /sources/custom_nodes /opt/ComfyUI/custom_nodes
RUN set -eu; for list in /opt/ComfyUI/custom_nodes/*/requirements.txt; do \
        if [ -f "${list}" ]; then /opt/ComfyUI/.venv/bin/pip install -r "${list}"; fi; \
    done
COPY --from=models /models /opt/ComfyUI/models
COPY deploy/extra_model_paths.yaml /opt/
COPY --from=agent /opt/agent /opt/agent
ENV COMFYUI_ROOT=/opt/ComfyUI \
    COMFYUI_ARGS="--extra-model-paths-config /opt/extra_model_paths.yaml" \
    PATH=/opt/agent/bin:$PATH
EXPOSE 9000
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/opt/agent/bin/python", "-m", "agent.healthcheck"]
ENTRYPOINT ["tini", "--", "comfyui-agent"]
CMD ["serve"]
