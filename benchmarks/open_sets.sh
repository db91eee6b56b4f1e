#!/usr/bin/env bash
# The real sets that are open to anyone, at the profile of the committed numbers: prepare, run every method, all
# ablations on two of them. Needs CLCR_DATA; reads WORKERS, DEVICE, LAUNCHER, OUT, OPEN_SEEDS, KEEP (weights: "", best,
# epochs). See REPRODUCE.md.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${CLCR_DATA:?name the folder that holds mosi, ravdess_av, ucf101_3class and avdigits}"

clcr_run() {
  .venv/bin/clcr run --data real --profile open --seeds "${OPEN_SEEDS:-0-9}" --device "${DEVICE:-auto}" \
    --launcher "${LAUNCHER:-local}" --out "${OUT:-results}" ${WORKERS:+--workers "$WORKERS"} "$@"
}

for benchmark in cmu_mosi ravdess ucf101 av_digits; do
  .venv/bin/clcr prepare "$benchmark" --source "$CLCR_DATA"
done
for set in cmu_mosi.transcripts cmu_mosi.utterance ucf101.subset3 av_digits.paired ravdess.actor_disjoint; do
  clcr_run --benchmark "${set%.*}" --protocol "${set#*.}" --method all ${KEEP:+--keep "$KEEP"}
done
for set in cmu_mosi.transcripts ravdess.actor_disjoint; do
  clcr_run --benchmark "${set%.*}" --protocol "${set#*.}" --method clcr --variant all ${KEEP:+--keep best}
done
