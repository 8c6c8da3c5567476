#!/usr/bin/env bash
# Configures and builds.    usage: scripts/build.sh [build directory] [cmake options …]
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-$top/build}
[ $# -gt 0 ] && shift
cmake -S "$top" -B "$dir" "$@" >/dev/null
cmake --build "$dir" --parallel "$(nproc)"
