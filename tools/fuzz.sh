#!/usr/bin/env bash
# Builds the fuzz targets with clang and runs each for the given seconds, from its seeds in
# tests/fuzz_seeds/NAME. Stops at the first crash and leaves its input in build/fuzz/crashes.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}

cmake --preset fuzz >/dev/null
ninja -C build/fuzz --quiet
mkdir -p build/fuzz/crashes
for target in $(find build/fuzz/src -name 'fuzz_*' -type f -perm -u+x | sort); do
  name=$(basename "$target")
  corpus=build/fuzz/corpus/$name
  mkdir -p "$corpus"
  seeds=tests/fuzz_seeds/${name#fuzz_}
  echo "$name: $seconds s"
  "$target" "$corpus" $([ -d "$seeds" ] && echo "$seeds") -max_total_time="$seconds" \
    -rss_limit_mb=4096 -timeout=20 -artifact_prefix=build/fuzz/crashes/"$name"- \
    >build/fuzz/"$name".log 2>&1 || { tail -40 build/fuzz/"$name".log; exit 1; }
  tail -1 build/fuzz/"$name".log
done
