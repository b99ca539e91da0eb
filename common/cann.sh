# shellcheck shell=bash
# Brings CANN's environment into a shell script; sourced. PYTHON names the Python to ask.

# Takes over the environment that CANN's set_env.sh makes, or says why not (1). In a shell of its own, since it reads unset
# variables, may end in a failing command, and sets variables of its own.
source_set_env() {
  local place entry
  place=$("$PYTHON" "$(dirname "${BASH_SOURCE[0]}")/../tools/npu_info.py" --set-env) || return 1
  # shellcheck disable=SC1090 # the path is known only here
  while IFS= read -r -d '' entry; do
    [[ ! $entry =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || export "${entry?}"
  done < <(set +eu && . "$place" >/dev/null; env -0)
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
