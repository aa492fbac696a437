#!/bin/sh
# Builds the image with docker or buildah and tries it: a tiny cohort is prepared, trained on and evaluated, and a scan
# of it predicted, all as the image's own user. With TESTS=yes the tests of the package run in it, too (as root, in a
# container of their own that gets the tools for testing: the image has none). Options go to the build:
#
#   [TESTS=yes] tools/build_image.sh [IMAGE] [--build-arg TORCH=cpu] [--build-arg BASE_IMAGE=...]
set -eu
cd "$(dirname "$0")/.."
case "${1:-}" in "" | -*) image=lens-d2 ;; *) image=$1; shift ;; esac

if docker info > /dev/null 2>&1; then  # the command alone builds nothing without its daemon
    docker build "$@" -t "$image" .
    in_image() { docker run --rm --user 1000:1000 --shm-size=1g -v "$work:/output" "$image" "$@"; }
    as_root() { docker run --rm --user 0 --shm-size=1g "$image" "$@"; }
elif command -v buildah > /dev/null; then
    buildah bud "$@" -t "$image" .
    container=$(buildah from "$image")
    in_image() { buildah run --user 1000 -v "$work:/output" "$container" -- "$@"; }
    as_root() { buildah run --user 0 "$container" -- "$@"; }
else
    echo "build_image: needs docker or buildah" >&2
    exit 2
fi

work=$(mktemp -d)
trap 'rm -rf "$work"; [ -z "${container:-}" ] || buildah rm "$container" > /dev/null' EXIT
chmod 1777 "$work"
in_image python train_net.py --help > /dev/null
in_image lens-d2 phantom --size tiny --output /output/data/phantom --workers 2
in_image env DETECTRON2_DATASETS=/output/data python datasets/prepare_datasets.py \
    --config-file configs/phantom/lens_multi.yaml
in_image env DETECTRON2_DATASETS=/output/data python train_net.py --config-file configs/phantom/lens_multi.yaml \
    SOLVER.MAX_ITER 4 SOLVER.STEPS "(3,)" OUTPUT_DIR /output/run
scan=$(find "$work/data/phantom/LiTS" -name 'volume-*' | sort | head -n 1)
in_image lens-d2 predict --input "/output${scan#"$work"}" --output /output/scan
test -s "$work/scan/report.html"
echo "$image: prepared, trained, evaluated and predicted in it"

if [ "${TESTS:-no}" = yes ]; then
    as_root sh -c 'pip install -q -c constraints.txt -r requirements-dev.txt && python -m pytest -q -p no:cacheprovider \
        tests/commands tests/data tests/engine tests/evaluation tests/inference tests/io tests/mining tests/modeling \
        tests/structures --deselect tests/commands/test_evaluate.py::test_commands'  # it reads docs/, not in the image
fi
