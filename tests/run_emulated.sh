#!/usr/bin/env bash
# Run tests on another kind of processor than this one, by QEMU: an x86-64 with AVX2 and without VNNI, where 8-bit products saturate.
#
#   bash tests/run_emulated.sh                      the tests of the quantisation and of equal bytes on tiny nets: a minute or two
#   bash tests/run_emulated.sh tests/test_infer.py  these, or whatever else pytest is given
#
# PYTHON is the Python with the packages (default: python3), EMULATOR the emulator (default: Debian's qemu-user, as Haswell).
# QEMU has no AVX-512, so the kind with VNNI needs a processor that has it.
# Exit code: pytest's; 3: the emulator is not here, or does not run this Python.
set -euo pipefail

HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# Without what QEMU would warn that it lacks.
EMULATOR=${EMULATOR:-qemu-x86_64 -cpu Haswell,-pcid,-x2apic,-tsc-deadline,-hle,-invpcid,-rtm}
PYTHON=$(command -v "${PYTHON:-python3}")

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
# A program that stands for Python: what it starts by sys.executable is emulated, too (tests/conftest.py).
printf '#!/bin/sh\nexec %s %q "$@"\n' "$EMULATOR" "$PYTHON" >"$work/python3"
chmod +x "$work/python3"
if ! "$work/python3" -c pass; then
  echo "$EMULATOR cannot run $PYTHON here: install qemu-user; it must be a Python of that architecture" >&2
  exit 3
fi
if [ $# = 0 ]; then set -- -m processor tests/test_quantize.py tests/test_infer.py; fi
cd "$HERE"
EMULATED_PYTHON=$work/python3 "$work/python3" -m pytest -q -n 0 -p no:cacheprovider "$@"
