# LENS-D2 for GPU machines and clusters, in the project's pinned environment.
#
#   docker build -t lens-d2 .
#   docker run --gpus all --shm-size=16g -v /path/to/datasets:/data -v /path/to/output:/output lens-d2 \
#       python train_net.py --config-file configs/lens_multi.yaml --num-gpus 4 OUTPUT_DIR /output/lens_multi
#
# --shm-size (or --ipc=host): data loader workers hand batches over in shared memory, and Docker's default of 64 MB
# is too little. /data is laid out as datasets/README.md says; the volume cache is written there too. The user of the
# image is 1000:1000; for folders of another owner: docker run --user "$(id -u):$(id -g)" ...
#
# torch brings its own CUDA and cuDNN, and Detectron2's compiled operators are not used: neither a CUDA image nor nvcc
# is needed, but the host's driver has to be new enough. --build-arg TORCH=cu126 takes drivers from 560 on, cu130 (and
# the default) from 580 on, cpu none. tools/build_image.sh builds and tries an image with buildah or docker.
ARG BASE_IMAGE=python:3.12-slim
FROM ${BASE_IMAGE}
ARG TORCH=default
ARG USER_ID=1000
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install -y --no-install-recommends gcc g++ libc6-dev make && \
    rm -rf /var/lib/apt/lists/*
ENV VENV=/opt/venv \
    CI=true \
    DEV=no \
    PIP_NO_CACHE_DIR=1 \
    PATH=/opt/venv/bin:$PATH
WORKDIR /app
COPY . .
RUN make setup TORCH="${TORCH}" && \
    useradd --create-home --uid "${USER_ID}" lens && \
    mkdir /data /output && \
    chmod 1777 /data /output
ENV PYTHONDONTWRITEBYTECODE=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    DEMO_OUTPUT=/output/demo \
    DETECTRON2_DATASETS=/data
USER ${USER_ID}
VOLUME ["/data", "/output"]
CMD ["python", "train_net.py", "--help"]
