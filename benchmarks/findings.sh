#!/usr/bin/env bash
# Everything that results/REPORT.md rests on, from the start: the open sets and the synthetic twins with the weights that
# analyses read, the search of SGD, the studies, the analyses, the report. Hours on two cores; a second call goes on.
# Needs CLCR_DATA; reads WORKERS, DEVICE, LAUNCHER, OUT, SEEDS.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${OUT:-results}"
how=(--device "${DEVICE:-auto}" --launcher "${LAUNCHER:-local}" ${WORKERS:+--workers "$WORKERS"})

KEEP=epochs benchmarks/open_sets.sh
.venv/bin/clcr run --benchmark crema_d,kinetics_sounds,ave,ucf101,cmu_mosi,cmu_mosei --data twin --method all --variant all \
  --profile tiny --seeds "${SEEDS:-0-9}" --keep best --out "$out" "${how[@]}"
for set in cmu_mosi.transcripts cmu_mosi.utterance ucf101.subset3; do
  .venv/bin/clcr search --data real --profile open+sgd --trials 6 --benchmark "${set%.*}" --protocol "${set#*.}" \
    --method all --adopt --out "$out" --device "${DEVICE:-auto}" ${WORKERS:+--workers "$WORKERS"}
done
.venv/bin/clcr run --study all --out "$out/studies" "${how[@]}"
.venv/bin/clcr analyse all --out "$out" --device "${DEVICE:-auto}"
.venv/bin/clcr report --partial --out "$out"
