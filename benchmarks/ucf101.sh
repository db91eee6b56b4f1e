#!/usr/bin/env bash
# UCF101: every method, then its tables (see one.sh for the variables it reads).
exec "$(dirname "$0")/one.sh" ucf101 "$@"
