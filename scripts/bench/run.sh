#!/usr/bin/env bash
# Tide and PyTorch side by side: rates, ratios, memory, and whether both compute the same; the machine's own limits beside them.
#     usage: scripts/bench/run.sh [--setup] [--rounds 5] [--threads 1,2] [--seconds 1] [--json FILE] [--no-limits] [--tide-only] [workload …]
#   --setup       first gets PyTorch into build/bench: the newest from PyPI, or where that cannot be had Debian's python3-torch
#   --threads     counts of threads, all measured in this run
#   --tide-only   without PyTorch
# PyTorch is that of $PYTHON, of build/bench (see --setup), or of python3; without any, Tide's rates alone are printed. $TIDE names another
# interpreter. Workloads are listed in compare.lua.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
build=${TIDE_BUILD:-$top/build}
tide=${TIDE:-$build/bin/tide}
setup=0 limits=1 workloads="" pass=()
while [ $# -gt 0 ]; do
  case "$1" in
    --setup) setup=1; shift ;;
    --no-limits) limits=0; shift ;;
    --tide-only) pass+=("$1"); shift ;;
    --rounds | --threads | --seconds | --json) pass+=("$1" "$2"); shift 2 ;;
    -*) sed -n '3s/^# *//p' "$0" >&2; exit 2 ;;
    *) workloads="$workloads,$1"; shift ;;
  esac
done
[ -x "$tide" ] || { echo "bench: no interpreter at $tide: run scripts/build.sh first, or set TIDE" >&2; exit 1; }

if grep -qs 'TIDE_ASSERT:BOOL=ON' "$build/CMakeCache.txt"; then
  echo "bench: $build checks the core's invariants (TIDE_ASSERT=ON, as test.sh builds it): rates are lower than without" >&2
fi

has_torch() { "$1" -c 'import torch' 2>/dev/null; }
if [ $setup = 1 ]; then
  venv=$build/bench/python
  mkdir -p "$build/bench"
  if ! { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet torch numpy; }; then
    echo "bench: no PyTorch from PyPI; taking Debian's" >&2
    rm -rf "$venv"
    if [ "$(id -u)" = 0 ]; then apt-get install -y python3-torch; else sudo apt-get install -y python3-torch; fi
  fi
fi
python=${PYTHON:-}
if [ -z "$python" ]; then
  for p in "$build/bench/python/bin/python3" python3 /usr/bin/python3; do
    if has_torch "$p"; then python=$p; break; fi
  done
elif ! has_torch "$python"; then
  echo "bench: $python cannot import torch" >&2
  exit 1
fi

BENCH_WORK=$(mktemp -d)
export BENCH_WORK PYTHONDONTWRITEBYTECODE=1
trap 'rm -rf "$BENCH_WORK"' EXIT
program="" costs=""
if [ $limits = 1 ] && [ -f "$build/CMakeCache.txt" ]; then
  if cmake --build "$build" --target bench_limits --target bench_costs >"$BENCH_WORK/build.log" 2>&1; then
    program=$build/bench/limits
    costs=$build/bench/costs
  else
    echo "bench: the programs that measure the machine's limits and the core's costs cannot be built:" >&2
    tail -5 "$BENCH_WORK/build.log" >&2
  fi
fi

echo "machine: $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"
if [ -n "$python" ]; then
  "$python" -c 'import sys, torch; print(f"PyTorch {torch.__version__} ({sys.executable}), Python {sys.version.split()[0]}")'
else
  echo "PyTorch: there is none, so no ratios; scripts/bench/run.sh --setup gets it"
fi
trap '' PIPE # a contestant that ends early is reported, it does not end the run
"$tide" "$here/compare.lua" --tide "$tide" --python "$python" --limits "$program" --costs "$costs" --workloads "$workloads" ${pass[@]+"${pass[@]}"} || {
  rc=$?
  [ -s "$BENCH_WORK/errors" ] && { echo "what contestants said:" >&2; tail -40 "$BENCH_WORK/errors" >&2; }
  exit $rc
}
