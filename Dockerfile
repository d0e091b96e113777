# Untried: it was written where there is no Docker. On a host with an NVIDIA driver and its container toolkit, the two
# commands of the README, and a training:
#
#   docker build --tag imagenet_jax .
#   docker run --rm imagenet_jax make demo
#   docker run --rm imagenet_jax make test
#   docker run --rm --gpus all --shm-size 8g --volume "$PWD/data:/imagenet_jax/data" \
#       --volume "$PWD/runs:/imagenet_jax/runs" imagenet_jax imagenet_jax train --config resnet50 --workdir runs/resnet50
#
# The folder runs has to be writable by user 1000, or by the one that --user names.

# CUDA's libraries come with JAX's wheels: this image has the settings by which the host lends its driver, no more.
FROM nvidia/cuda:12.9.1-base-ubuntu24.04

# A compiler and libjpeg-turbo's headers are for the faster reader of JPEGs.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libjpeg-dev make python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

# ubuntu:24.04 has a user of that name, number 1000, who is not root.
RUN install --directory --owner ubuntu --group ubuntu /imagenet_jax
USER ubuntu
WORKDIR /imagenet_jax
COPY --chown=ubuntu:ubuntu . .
RUN make install \
    && .venv/bin/python -m pip install --no-cache-dir --editable '.[cuda12]' \
    && mkdir --parents data runs

ENV PATH=/imagenet_jax/.venv/bin:$PATH PYTHONUNBUFFERED=1
CMD ["imagenet_jax", "--help"]
