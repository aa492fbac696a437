#!/usr/bin/env bash
# Makes rows of tables on a machine with GPUs that is at hand for a quarter of an hour.
#
#     experiments/gpu.sh lens-1 lens-3
#     OUT=/tmp/out SEEDS="1 2" MINUTES=8 JOBS=8 experiments/gpu.sh gap -- SOLVER.MAX_ITER 2000 SOLVER.STEPS "(1400,1800)"
#
# It writes the tables' cohort, then makes as many runs as fit into MINUTES, JOBS of them side by side. It needs Python
# 3.12 with torch, and no package index: wheels in the folder wheels/ of the repository are installed before. $OUT gets
# records.tar.gz, what `tar xzf records.tar.gz -C docs/results` adds to the records that are there, and logs.tar.gz.
# Records that are in docs/results already are not made again. SIZE and COHORT_SEED take another cohort, WORK another
# folder for cohort and checkpoints; COMMIT says which commit this is, where git does not know.
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
    "$python" -m pip install --quiet --no-index --find-links wheels --no-deps wheels/*.whl
fi

[[ -d docs/results/runs ]] && cp -r docs/results/runs "$work/results/"
touch "$work/began"
options=(--table "${tables[@]}" --seeds ${SEEDS:-1} --output "$work/results" --work "$work")
options+=(--jobs "${JOBS:-8}" --workers "${WORKERS:-16}" --minutes "${MINUTES:-8}")
[[ -n ${SIZE:-} ]] && options+=(--size "$SIZE")
[[ -n ${COHORT_SEED:-} ]] && options+=(--cohort-seed "$COHORT_SEED")
status=0
"$python" -m experiments reproduce "${options[@]}" "$@" || status=$?

pack() { # folder, name of files, archive: those that are new
    (cd "$1" && find . -name "$2" -newer "$work/began" -print0 | tar czf "$out/$3" --null -T -)
}
pack "$work/results" '*.json' records.tar.gz
pack "$work/runs" log.txt logs.tar.gz
exit $status
