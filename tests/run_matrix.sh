#!/usr/bin/env bash
# Run the whole test suite on each Python that is there, in a fresh virtual environment with the newest packages it can install.
#
#   bash tests/run_matrix.sh              guide 3.7 3.8 3.9 3.10 3.11 3.12 3.13
#   bash tests/run_matrix.sh guide 3.13   only these; guide is Python 3.7 with requirements-guide.txt
#   MATRIX_FOLDER=DIR bash tests/run_matrix.sh --install guide   only install that one, for a later run with the same folder
#
# One after the other, each on two CPUs. Prints a table, and the reason of each skipped test. PYTEST_ADDOPTS is pytest's.
# Exit code 0: all that ran is green; 1: something is red; 2: wrong usage; 3: none of these Pythons is here.
set -euo pipefail

HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
VERSIONS='import importlib
print(*[importlib.import_module(name).__version__ for name in "torch torchvision onnx onnxruntime numpy PIL".split()], sep=" | ")'

# The path of a Python of this minor version: on PATH, else the newest of pyenv's.
find_python() {
  local candidate
  # A shim of pyenv's is on PATH for versions that are not switched on, too, and fails; so each is asked.
  for candidate in "python$1" $(printf '%s\n' "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/"python$1" | sort -rV); do
    if "$candidate" -c 'import venv' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

# install_one ROW VERSION: a virtual environment in ROW.venv; what pip said is in ROW.log. 1: there is no such Python, or pip failed.
install_one() {
  local row=$1 version=$2 requirements=requirements-dev.txt python
  if [ "$version" = guide ]; then requirements=requirements-guide.txt version=3.7; fi
  python=$(find_python "$version") || return
  "$python" -m venv "$row.venv"
  echo "| $("$python" -c 'import platform; print(platform.python_version())') ($requirements) |" >"$row.python"
  "$row.venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$HERE/$requirements" pytest pytest-xdist >"$row.log" 2>&1 &&
    touch "$row.installed"
}

# run_one ROW VERSION: its line of the table, in ROW.line; what pip and pytest said, in ROW.log.
run_one() {
  local row=$1 versions="- | - | - | - | - | -" counts word
  [ -e "$row.installed" ] || install_one "$row" "$2" || true
  [ -e "$row.python" ] || return 0
  if [ ! -e "$row.installed" ]; then
    counts="installation failed | |"
  else
    versions=$("$row.venv/bin/python" -c "$VERSIONS" 2>>"$row.log") || versions="cannot import | | | | |"
    # The venv's own programs come first on PATH, as where it is activated.
    PATH=$row.venv/bin:$PATH "$row.venv/bin/python" -m pytest -q -p no:cacheprovider "$HERE/tests" >>"$row.log" 2>&1 || true
    counts=""
    for word in passed failed error skipped; do
      counts+=" $(tail -n 1 "$row.log" | grep -oE "[0-9]+ $word" | cut -d ' ' -f 1 | grep . || echo 0) |"
    done
  fi
  echo "$(cat "$row.python") $versions |$counts" >"$row.line"
  rm -rf -- "$row.venv" # some GB each
}

main() {
  local wanted=("$@") work version red="" lines
  if [ "${1:-}" = --install ]; then
    install_one "${MATRIX_FOLDER:?names no folder for it}/$2" "$2"
    exit
  fi
  [ $# -gt 0 ] || wanted=(guide 3.7 3.8 3.9 3.10 3.11 3.12 3.13)
  for version in "${wanted[@]}"; do
    [[ $version =~ ^(guide|3\.[0-9]+)$ ]] || { echo "error: $version is neither guide nor a version such as 3.12" >&2 && exit 2; }
  done
  work=${MATRIX_FOLDER:-$(mktemp -d)}
  # shellcheck disable=SC2064 # the folder is known now
  trap "rm -rf -- '$work'" EXIT
  for version in "${wanted[@]}"; do
    run_one "$work/$version" "$version"
    [ ! -f "$work/$version.line" ] || echo "done: $version" >&2
  done
  for version in "${wanted[@]}"; do
    [ -f "$work/$version.line" ] || { echo "Python of $version: NOT FOUND, nothing was run on it" >&2 && continue; }
    grep -qE '\| *[1-9][0-9]* \| 0 \| 0 \| [0-9]+ \|$' "$work/$version.line" || { red=yes && cat "$work/$version.log"; }
  done
  lines=$(for version in "${wanted[@]}"; do cat "$work/$version.line" 2>/dev/null || true; done)
  [ -n "$lines" ] || exit 3
  echo "| Python (packages of) | torch | torchvision | onnx | onnxruntime | numpy | Pillow | passed | failed | errors | skipped |"
  echo "|---|---|---|---|---|---|---|---|---|---|---|"
  echo "$lines"
  for version in "${wanted[@]}"; do
    sed -n "s/^SKIPPED/skipped on $version:/p" "$work/$version.log" 2>/dev/null || true
  done
  [ -z "$red" ]
}

main "$@"
