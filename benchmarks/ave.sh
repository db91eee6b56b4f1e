#!/usr/bin/env bash
# AVE: every method, then its tables (see one.sh for the variables it reads).
exec "$(dirname "$0")/one.sh" ave "$@"
