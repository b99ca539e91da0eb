# shellcheck shell=bash
# Brings CANN's environment into a shell script; sourced. PYTHON names the Python to ask.

# Sources CANN's set_env.sh, or says why not (1). It reads unset variables and may end in a failing command: not under this strictness.
source_set_env() {
  local place root
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  place=$("$PYTHON" "$root/tools/npu_info.py" --set-env) || return 1
  set +eu
  # shellcheck disable=SC1090 # the path is known only here
  . "$place" >/dev/null
  set -eu
  clean_pythonpath
}

# An empty entry of PYTHONPATH means the current folder, whose re.py would then be Python's; CANN's set_env.sh leaves one.
clean_pythonpath() {
  local entry entries=() IFS=:
  for entry in ${PYTHONPATH:-}; do
    [ -z "$entry" ] || entries+=("$entry")
  done
  PYTHONPATH=${entries[*]-}
  [ -n "$PYTHONPATH" ] || unset PYTHONPATH
}
