#!/usr/bin/env bash
# Makes rows of tables on a machine with GPUs that is at hand for a quarter of an hour.
#
#     experiments/gpu.sh lens-1 lens-3
#     OUT=/tmp/out SEEDS="1 2" MINUTES=8 JOBS=8 experiments/gpu.sh gap -- SOLVER.MAX_ITER 2000 SOLVER.STEPS "(1400,1800)"
#
# It writes the tables' cohort, then makes runs, JOBS of them side by side, until MINUTES have passed in all. It needs
# Python 3.12 with torch, and no package index: what is in the folder wheels/ of the repository is installed before. A
# machine with an index fills it with what the other one lacks of requirements.txt, and with Detectron2:
#
#     python3.12 -m pip wheel --wheel-dir wheels --no-deps -c constraints.txt fvcore iopath yacs pycocotools blosc2
#     python3.12 -m pip download --dest wheels --no-deps --only-binary :all: --python-version 3.10 \
#         -r requirements-detectron2.txt
#
# $OUT gets records.tar.gz, what `tar xzf records.tar.gz -C docs/results` adds to the records that are there, and
# logs.tar.gz, also if it is asked to end (SIGTERM, Ctrl-C). Runs with a record in docs/results are made again only if
# another one needs their files. SIZE and COHORT_SEED take another cohort, WORK another folder for cohort and
# checkpoints; COMMIT says which commit this is, where git does not know.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-output/gpu} work=${WORK:-output/reproduce} python=${PYTHON:-python3}
mkdir -p "$out" "$work/results" "$work/runs"
out=$(realpath "$out") work=$(realpath "$work")

tables=()
while [[ $# -gt 0 && $1 != -- ]]; do
    tables+=("$1")
    shift
done

if [[ -d wheels ]]; then
    export PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels
    find wheels -name '*.whl' ! -name 'sal_detectron2*' -exec "$python" -m pip install --quiet --no-deps {} +
    "$python" -m lens_d2 setup # Detectron2, whose wheel names another Python
fi

[[ -d docs/results/runs ]] && cp -r docs/results/runs "$work/results/"
touch "$work/began"
options=(--table "${tables[@]}" --seeds ${SEEDS:-1} --output "$work/results" --work "$work")
options+=(--jobs "${JOBS:-8}" --workers "${WORKERS:-16}" --minutes "${MINUTES:-8}")
[[ -n ${SIZE:-} ]] && options+=(--size "$SIZE")
[[ -n ${COHORT_SEED:-} ]] && options+=(--cohort-seed "$COHORT_SEED")
status=0
"$python" -m experiments reproduce "${options[@]}" "$@" &
trap 'kill -TERM $! 2> /dev/null || true' TERM INT
wait $! || status=$?
while kill -0 $! 2> /dev/null; do # a signal has ended `wait`, and the command goes on until its runs have ended
    wait $! || status=$?
done
trap '' TERM INT

pack() { # folder, name of files, archive: those that are new
    (cd "$1" && find . -name "$2" -newer "$work/began" -print0 | tar czf "$out/$3" --null -T -)
}
pack "$work/results" '*.json' records.tar.gz
pack "$work/runs" log.txt logs.tar.gz
exit $status
