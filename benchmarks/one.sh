#!/usr/bin/env bash
# One benchmark: run every method on it, then print its tables. Called by the scripts beside it.
# Reads PROFILE, SEEDS, WORKERS, DEVICE, LAUNCHER, OUT, CLCR_DATA, CLCR_CACHE; further arguments go to `clcr run`.
set -euo pipefail
cd "$(dirname "$0")/.."
benchmark=$1
shift
out=${OUT:-results}
if [ -n "${CLCR_DATA:-}" ]; then
  .venv/bin/clcr prepare "$benchmark" --source "$CLCR_DATA" || echo "$benchmark: not prepared from CLCR_DATA" >&2
fi
.venv/bin/clcr run --benchmark "$benchmark" --method all --variant "${VARIANT:-full}" --profile "${PROFILE:-tiny}" \
  --seeds "${SEEDS:-0-2}" --device "${DEVICE:-auto}" --launcher "${LAUNCHER:-local}" --out "$out" \
  ${WORKERS:+--workers "$WORKERS"} "$@"
.venv/bin/clcr report --benchmark "$benchmark" --only tables --out "$out"
