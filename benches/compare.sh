#!/usr/bin/env bash
# Runs the mesh benchmark on the Go reference SDK and on nsm, one after the
# other on this machine, and prints both with their ratios.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: benches/compare.sh [--quick] [--out DIR]

  --quick    smaller counts: seconds instead of minutes, not for quoting
  --out DIR  where go.json, rust.json and both logs go (default: target/compare)

Needs cargo, Go 1.24 or newer and, the first time, the Go module proxy.
Leave the machine alone meanwhile: both sides use all of it.
USAGE
}

die() { printf 'compare: %s\n' "$1" >&2; exit "${2:-1}"; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=$root/target/compare
quick=0
while (($#)); do
  case $1 in
    --quick) quick=1 ;;
    --out) [[ ${2:-} ]] || die "--out needs a directory" 2; out=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done

command -v cargo >/dev/null || die "cargo is not on the PATH: install Rust" 3
command -v go >/dev/null || die "Go is not on the PATH, and the reference is a Go module: install Go 1.24 or newer.
Our side alone: cargo bench -p nsm-benches --bench mesh -- --json" 3

mkdir -p "$out"
out=$(cd "$out" && pwd)
rm -f "$out/go.json" "$out/rust.json"
cd "$root/benches/go-sdk"

# Both sides are built before either runs, so that nothing compiles meanwhile.
echo "Building the Go side" >&2
go mod download >"$out/go.log" 2>&1 ||
  die "the Go modules cannot be had: is the proxy ($(go env GOPROXY)) reachable? See $out/go.log" 3
go test -c -o "$out/go-mesh.test" . >>"$out/go.log" 2>&1 ||
  die "the Go side does not build: see $out/go.log"
go build -o "$out/compare" ./cmd/compare >>"$out/go.log" 2>&1 ||
  die "the Go side does not build: see $out/go.log"
echo "Building the Rust side" >&2
(cd "$root" && cargo bench -q -p nsm-benches --bench mesh --no-run) >"$out/rust.log" 2>&1 ||
  die "the Rust side does not build: see $out/rust.log"

export NSM_BENCH_QUICK=$quick
echo "Measuring the Go side" >&2
NSM_BENCH_OUT=$out/go.json "$out/go-mesh.test" -test.run '^TestMesh$' -test.timeout 5m >>"$out/go.log" 2>&1 ||
  die "the Go side failed: see the end of $out/go.log"
echo "Measuring the Rust side" >&2
(cd "$root" && cargo bench -q -p nsm-benches --bench mesh -- --json) >"$out/rust.json" 2>>"$out/rust.log" ||
  die "the Rust side failed: see the end of $out/rust.log"

"$out/compare" "$out/go.json" "$out/rust.json"
