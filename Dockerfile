# LENS-D2 for GPU machines: the project's pinned environment with the official Detectron2, built against CUDA.
#
#   docker build -t lens-d2 .
#   docker run --gpus all --shm-size=16g -v /path/to/datasets:/data -v /path/to/output:/output lens-d2 \
#       python train_net.py --config-file configs/lens_multi.yaml --num-gpus 4 OUTPUT_DIR /output/lens_multi
#
# --shm-size (or --ipc=host): data loader workers hand batches over in shared memory, and Docker's default of 64 MB
# is too little. /data is laid out as datasets/README.md says; the volume cache is written there too. The user of the
# image is 1000:1000; for folders of another owner: docker run --user "$(id -u):$(id -g)" ... or --build-arg USER_ID.
#
# Every version comes from the project's own files by way of `make setup`. Only the CUDA version stands here, and it
# is the one that the pinned torch was built with; torch brings its own CUDA and cuDNN libraries, so that the second
# stage needs none.
ARG CUDA_IMAGE=nvidia/cuda:13.0.0

FROM ${CUDA_IMAGE}-devel-rockylinux9 AS build
# hadolint ignore=DL3041
RUN dnf install -y gcc-c++ git make python3.11 python3.11-devel python3.11-pip && dnf clean all
WORKDIR /app
ENV VENV=/opt/venv \
    CI=true \
    PIP_NO_CACHE_DIR=1 \
    FORCE_CUDA=1 \
    CUDA_HOME=/usr/local/cuda \
    TORCH_CUDA_ARCH_LIST="7.5;8.0;8.6;8.9;9.0;10.0;12.0+PTX"
COPY Makefile README.md LICENSE MANIFEST.in pyproject.toml setup.py requirements.txt requirements-dev.txt \
     requirements-detectron2.txt constraints.txt ./
COPY lens_d2/__init__.py lens_d2/
RUN make setup DETECTRON2=official

FROM ${CUDA_IMAGE}-base-rockylinux9
# hadolint ignore=DL3041
RUN dnf install -y make python3.11 && dnf clean all
ARG USER_ID=1000
RUN useradd --create-home --uid "${USER_ID}" lens && \
    mkdir /data /output && \
    chmod 1777 /data /output
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY . .
ENV VENV=/opt/venv \
    PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    DEMO_OUTPUT=/output/demo \
    DETECTRON2_DATASETS=/data
# The environment is newer than the files it was made from, whatever dates these bring along.
RUN touch "${VENV}"/installed-official
USER ${USER_ID}
VOLUME ["/data", "/output"]
CMD ["python", "train_net.py", "--help"]
