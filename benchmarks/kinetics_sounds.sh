#!/usr/bin/env bash
# Kinetics-Sounds: every method, then its tables (see one.sh for the variables it reads).
exec "$(dirname "$0")/one.sh" kinetics_sounds "$@"
