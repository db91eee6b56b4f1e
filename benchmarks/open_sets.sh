#!/usr/bin/env bash
# The real sets that are open to anyone, at the profile of the committed numbers: prepare, run every method, all
# ablations on two of them. Needs CLCR_DATA; reads WORKERS, DEVICE, LAUNCHER, OUT, OPEN_SEEDS. See REPRODUCE.md.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${CLCR_DATA:?name the folder that holds mosi, ravdess_av, ucf101_3class and avdigits}"

clcr_run() {
  .venv/bin/clcr run --data real --profile open --seeds "${OPEN_SEEDS:-0-4}" --device "${DEVICE:-auto}" \
    --launcher "${LAUNCHER:-local}" --out "${OUT:-results}" ${WORKERS:+--workers "$WORKERS"} "$@"
}

for benchmark in cmu_mosi ravdess ucf101 av_digits; do
  .venv/bin/clcr prepare "$benchmark" --source "$CLCR_DATA"
done
clcr_run --benchmark cmu_mosi --protocol transcripts --method all
clcr_run --benchmark cmu_mosi --protocol utterance --method all
clcr_run --benchmark ravdess --protocol actor_disjoint --method all
clcr_run --benchmark ucf101 --protocol subset3 --method all
clcr_run --benchmark av_digits --method all
clcr_run --benchmark cmu_mosi --protocol transcripts --method clcr --variant all
clcr_run --benchmark ravdess --protocol actor_disjoint --method clcr --variant all
