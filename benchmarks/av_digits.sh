#!/usr/bin/env bash
# Audio-visual digits: every method, then its tables (see one.sh for the variables it reads).
exec "$(dirname "$0")/one.sh" av_digits "$@"
