# CPU:  docker build -t vlm-harness .
# GPU:  docker build -t vlm-harness --build-arg TORCH_INDEX=https://pypi.org/simple .
#
# docker run --rm -v "$PWD:/data" -u "$(id -u):$(id -g)" vlm-harness --model tiny-clip --tasks whatsup_rendered
# With a GPU, add --gpus all. To keep downloaded weights: -v "$HOME/.cache/huggingface:/cache/huggingface"
ARG BASE=python:3.12-slim
FROM ${BASE}

# The index of the torch wheels, which decides between CPU and CUDA builds.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH="torch==2.14.1 torchvision==0.29.1"
# hadolint ignore=DL3013,SC2086
RUN pip install --no-cache-dir --index-url "${TORCH_INDEX}" ${TORCH}

# Extras of pyproject.toml: hub (packages that some checkpoints need), quant, plot, wandb.
ARG EXTRAS=hub,plot
COPY pyproject.toml README.md LICENSE /src/
COPY vlm_harness /src/vlm_harness
COPY tasks /src/tasks
COPY prompts /src/prompts
COPY models /src/models
COPY leaderboard /src/leaderboard
RUN pip install --no-cache-dir "/src[${EXTRAS}]" && rm -r /src

RUN useradd --create-home --uid 1000 harness \
    && mkdir -p /data /cache/huggingface \
    && chown -R harness /data /cache \
    && chmod -R a+rwX /cache
ENV HF_HOME=/cache/huggingface \
    XDG_CACHE_HOME=/cache
USER 1000
WORKDIR /data
ENTRYPOINT ["vlm-harness"]
CMD ["--help"]
