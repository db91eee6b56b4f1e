#!/usr/bin/env bash
# CMU-MOSI: every method, then its tables (see one.sh for the variables it reads).
exec "$(dirname "$0")/one.sh" cmu_mosi "$@"
