#!/usr/bin/env bash
# Builds and tests everything.    usage: scripts/test.sh [--quick] [--device NAME]
#   --quick   no sanitizer build and no install test
# Each step's output goes to build/test/<step>.log; a failing step's end is shown. The last line says how many passed and failed.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top" || exit 1
quick=0
while [ $# -gt 0 ]; do
  case "$1" in
    --quick) quick=1; shift ;;
    --device) export TIDE_TEST_DEVICE=$2; shift 2 ;;
    *) echo "usage: scripts/test.sh [--quick] [--device NAME]" >&2; exit 2 ;;
  esac
done
scripts/setup.sh --tests || exit 1

build=$top/build
logs=$build/test
mkdir -p "$logs"
passed=0 failed=0 failures=""
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}

step() { # name, command …
  local name=$1 t0=$SECONDS log
  shift
  log=$logs/$(echo "$name" | tr ' /' '--').log
  if "$@" >"$log" 2>&1; then
    passed=$((passed + 1))
    printf 'ok      %-34s %4d s   %s\n' "$name" $((SECONDS - t0)) "$(grep -aE '[0-9]+ (successes|passed)' "$log" | tail -1)"
  else
    failed=$((failed + 1)); failures="$failures
  $name: $log"
    printf 'FAILED  %-34s %4d s\n' "$name" $((SECONDS - t0))
    tail -n "${TIDE_TEST_TAIL:-60}" "$log" | sed 's/^/        /'
  fi
}

specs() { # interpreter [folder …]: all busted specs, in one process each
  local lua=$1 bad=0 spec
  shift
  [ $# -gt 0 ] || set -- tests
  for spec in $(find "$@" -name '*_spec.lua' | sort); do
    echo "== $spec"
    "$lua" -e 'package.path = "/usr/share/lua/5.4/?.lua;/usr/share/lua/5.4/?/init.lua;" .. package.path' \
      scripts/busted.lua --output=plainTerminal --helper=tests/helper.lua "$spec" || bad=1
  done
  return $bad
}
specs_stock() {
  LUA_PATH="$1/share/lua/5.4/?.lua;$1/share/lua/5.4/?/init.lua;;" LUA_CPATH="$1/lib/lua/5.4/?.so;;" specs lua5.4
}
c_tests() { # build directory: every C test and a short run of every fuzzer
  local bad=0 n=0 t
  export TIDE_PLUGIN_PATH=$1/lib/tide/plugins
  for t in "$1"/tests/test_* "$1"/tests/fuzz_*; do
    [ -x "$t" ] || continue
    n=$((n + 1))
    echo "== ${t##*/}"
    "$t" || { echo "${t##*/} ended with $?"; bad=1; }
  done
  unset TIDE_PLUGIN_PATH
  [ $n -gt 0 ] || { echo "no test was built in $1/tests"; bad=1; }
  return $bad
}
examples() { # the scripts of a first visit run as they stand
  "$build/bin/tide" scripts/xor.lua && "$build/bin/tide" scripts/dynamic.lua && "$build/bin/tide" scripts/twenty_lines.lua &&
    "$build/bin/tide" scripts/train_fashion.lua --limit 2000 --epochs 1 &&
    "$build/bin/tide" scripts/workers.lua --n 1000 --epochs 1 &&
    "$build/bin/tide" scripts/char_lstm.lua --text README.md --steps 60 --length 100 &&
    "$build/bin/tide" scripts/gpt.lua --text README.md --steps 20 --layers 2 --length 100
}
installed() { # the installed tree runs with the build tree out of reach, by its interpreter and by a stock lua5.4
  local prefix=$build/test/prefix
  rm -rf "$prefix"
  cmake --install "$build" --prefix "$prefix" && mv "$build/lib" "$build/lib.away" || return 1
  env -i HOME="$HOME" PATH="$PATH" "$prefix/bin/tide" -e 'local t = require "tide"; print(t.nn.Linear(2, 3)(t.ones(1, 2)):shape())' &&
    env -i HOME="$HOME" PATH="$PATH" LUA_PATH="$prefix/share/lua/5.4/?.lua;$prefix/share/lua/5.4/?/init.lua;;" LUA_CPATH="$prefix/lib/lua/5.4/?.so;;" \
      lua5.4 -e 'local t = require "tide"; print(t.nn.Linear(2, 3)(t.ones(1, 2)):shape())' &&
    eval "cc -std=c11 -shared -fPIC $(PKG_CONFIG_PATH=$prefix/lib/pkgconfig pkg-config --cflags tide) -o \"\$prefix/stranger.so\" plugins/layers/relu.c"
  local rc=$?
  mv "$build/lib.away" "$build/lib"
  return $rc
}
lint() {
  luacheck -q lua tests scripts &&
    cppcheck --quiet --error-exitcode=1 --inline-suppr --std=c11 --enable=warning,portability --suppressions-list=.cppcheck \
      --max-configs=1 -I core/include -I core core lua plugins/layers plugins/losses plugins/optim &&
    git ls-files -co --exclude-standard '*.c' '*.h' | xargs clang-format --dry-run -Werror
}

# Python's own safetensors reader, against which ours is tested, in an environment of its own; without a network that spec is pending.
if ! python3 -c 'import safetensors.numpy' 2>/dev/null; then
  [ -x "$logs/python/bin/python3" ] || { python3 -m venv "$logs/python" && "$logs/python/bin/pip" install -q safetensors numpy; } \
    >"$logs/python.log" 2>&1 || true
  [ -x "$logs/python/bin/python3" ] && PATH=$logs/python/bin:$PATH
fi

echo "testing in $build; logs in $logs"
step "build" scripts/build.sh "$build" -DTIDE_TESTS=ON -DTIDE_ASSERT=ON # also where quickstart.sh has built without
step "C tests" c_tests "$build"
step "specs by tide" specs "$build/bin/tide"
step "specs by lua5.4" specs_stock "$build"
step "examples" examples
step "lint" lint
if [ $quick = 0 ]; then
  step "install" installed
  san=$top/build-sanitize
  step "build with sanitizers" scripts/build.sh "$san" -DTIDE_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DTIDE_TESTS=ON -DTIDE_ASSERT=ON
  export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
  export LSAN_OPTIONS="suppressions='$top/tests/lsan.supp':print_suppressions=0"
  step "C tests, sanitized" c_tests "$san"
  TIDE_SANITIZED=1 step "specs, sanitized" specs "$san/bin/tide"
fi

[ $failed = 0 ] || printf '\nfailures:%s\n' "$failures"
echo
echo "$passed passed, $failed failed"
[ $failed = 0 ]
