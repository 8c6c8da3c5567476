#!/usr/bin/env bash
# Installs what Tide is built with, from Debian's packages.    usage: scripts/setup.sh [--tests]
set -eu
packages="build-essential cmake pkg-config liblua5.4-dev lua5.4 libopenblas-openmp-dev libdnnl-dev zlib1g-dev dataset-fashion-mnist"
[ "${1:-}" = "--tests" ] && packages="$packages lua-busted lua-check cppcheck clang-format python3-venv"

missing=""
for p in $packages; do
  dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing="$missing $p"
done
[ -z "$missing" ] && exit 0

sudo=""
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "setup: not root and no sudo; please install:$missing" >&2; exit 1; }
  sudo="sudo"
fi
echo "setup: installing$missing"
# --allow-releaseinfo-change and a second try: a fresh machine's lists may be old
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
