#!/usr/bin/env bash
# CREMA-D: every method, then its tables (see one.sh for the variables it reads).
exec "$(dirname "$0")/one.sh" crema_d "$@"
