#!/usr/bin/env bash
# Sets up, builds and trains a convolutional network on Fashion-MNIST.    usage: scripts/quickstart.sh [options of train_fashion.lua]
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
"$top/scripts/setup.sh"
echo "building in $top/build"
"$top/scripts/build.sh" "$top/build" -DTIDE_TESTS=OFF -DTIDE_ASSERT=OFF >"$top/build.log" 2>&1 || { tail -40 "$top/build.log" >&2; exit 1; }
rm -f "$top/build.log"
exec "$top/build/bin/tide" "$top/scripts/train_fashion.lua" "$@"
