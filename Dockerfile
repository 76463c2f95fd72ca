# An image with the package and all that it needs, for one kind of device:
#
#   docker build --build-arg EXTRA=cuda13 --tag hamjepa_jax:cuda13 .    NVIDIA GPUs; cuda12 for older drivers
#   docker build --build-arg EXTRA=tpu --tag hamjepa_jax:tpu .          TPUs
#   docker run --gpus all --volume "$PWD/runs:/runs" hamjepa_jax:cuda13 hamjepa train --config=cifar100 --workdir=/runs/a
#
# The CUDA libraries come with jax's wheels; the machine needs the driver and NVIDIA's container toolkit alone.
FROM python:3.12

# nfs-common: launch/skypilot.yaml mounts a share.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends nfs-common \
    && rm -rf /var/lib/apt/lists/*

ARG EXTRA=cuda13
WORKDIR /hamjepa_jax
COPY . .
RUN pip install --no-cache-dir --editable ".[${EXTRA},fast]"
CMD ["hamjepa", "--help"]
