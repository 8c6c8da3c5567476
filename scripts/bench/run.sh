#!/usr/bin/env bash
# Tide and PyTorch side by side, in turn in one run: rates as medians of interleaved rounds, ratios, peak memory, and whether both
# compute the same losses.    usage: scripts/bench/run.sh [--rounds 5] [--threads 2] [--seconds 1] [workload …]
# PyTorch is python3's, or that of $PYTHON; without it Tide's rates alone are printed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tide=${TIDE:-$here/../../build/bin/tide}
python=${PYTHON:-python3}
rounds=5 threads=2 seconds=1 workloads=""
while [ $# -gt 0 ]; do
  case "$1" in
    --rounds) rounds=$2; shift 2 ;;
    --threads) threads=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    -*) echo "usage: run.sh [--rounds 5] [--threads 2] [--seconds 1] [workload …]" >&2; exit 2 ;;
    *) workloads="$workloads $1"; shift ;;
  esac
done
[ -n "$workloads" ] || workloads="add add_recorded xor mlp mlp_adam lenet"
[ -x "$tide" ] || { echo "bench: no interpreter at $tide: run scripts/build.sh first, or set TIDE" >&2; exit 1; }

torch=$("$python" -c 'import torch; print(torch.__version__)' 2>/dev/null || true)
export OMP_NUM_THREADS=$threads
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

peak() { # runs a command, its output to a file, and prints its peak resident MiB
  python3 - "$@" <<'PY' 2>/dev/null || "${@:2}" >"$1"
import os, resource, subprocess, sys
with open(sys.argv[1], "a") as out:
    code = subprocess.call(sys.argv[2:], stdout=out)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
sys.exit(code)
PY
}
median() { sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

echo "machine: $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1); $threads threads, $rounds rounds of $seconds s"
if [ -n "$torch" ]; then echo "PyTorch $torch ($python)"; else echo "PyTorch: $python has none, so no ratios"; fi
printf '%-14s %14s %14s %8s %10s %10s  %s\n' workload "Tide" "PyTorch" ratio "Tide MiB" "torch MiB" "first 20 losses"
for w in $workloads; do
  : >"$work/t"; : >"$work/p"
  tmem=- pmem=- same="-"
  for _ in $(seq "$rounds"); do
    tmem=$(peak "$work/t" "$tide" "$here/bench.lua" --workload "$w" --threads "$threads" --seconds "$seconds")
    [ -n "$torch" ] && pmem=$(peak "$work/p" "$python" "$here/bench.py" --workload "$w" --threads "$threads" --seconds "$seconds")
  done
  a=$(awk '{ print $1 }' "$work/t" | median)
  unit=$(awk 'NR == 1 { print $2 }' "$work/t")
  if [ -n "$torch" ]; then
    b=$(awk '{ print $1 }' "$work/p" | median)
    ratio=$(awk -v a="$a" -v b="$b" 'BEGIN { printf "%.2f", a / b }')
    case "$w" in
      add*) ;;
      *)
        "$tide" "$here/bench.lua" --workload "$w" --threads "$threads" --losses 20 >"$work/lt"
        "$python" "$here/bench.py" --workload "$w" --threads "$threads" --losses 20 >"$work/lp"
        same=$(paste -d' ' "$work/lt" "$work/lp" | awk '{ n = NF / 2; for (i = 1; i <= n; i++) { d = $i - $(i + n); if (d < 0) d = -d; if (d > m) m = d }
                 print (m < 1e-3 ? "agree" : "DIFFER") " to " m + 0 }') ;;
    esac
  else
    b=- ratio=-
  fi
  printf '%-14s %14s %14s %8s %10s %10s  %s\n' "$w" "$a" "$b" "$ratio" "$tmem" "$pmem" "$same"
  echo "    min..max: Tide $(awk '{ print $1 }' "$work/t" | sort -g | sed -n '1p;$p' | paste -sd' ') ${torch:+PyTorch $(awk '{ print $1 }' "$work/p" | sort -g | sed -n '1p;$p' | paste -sd' ')} $unit"
done
