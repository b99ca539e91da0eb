# shellcheck shell=bash
# CANN in the shell scripts: its environment, and whether this host can use an NPU; sourced. PYTHON names the Python to ask.

# Takes over the environment that CANN's set_env.sh makes, or says why not (1). In a shell of its own, since it reads unset
# variables, may end in a failing command, and sets variables of its own.
source_set_env() {
  local set_env entry
  set_env=$("$PYTHON" "$(dirname "${BASH_SOURCE[0]}")/../tools/npu_info.py" --set-env) || return 1
  # shellcheck disable=SC1090 # the path is known only here
  while IFS= read -r -d '' entry; do
    [[ ! $entry =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || export "${entry?}"
  done < <(set +eu && . "$set_env" >/dev/null; env -0)
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

# can_use_npu DEVICES OUTPUT "SIZES": sets reason, soc_version (where it is empty), and om to OUTPUT where every .om was carried there
# and nothing could compile them here.
can_use_npu() {
  local info answer size
  info=$(dirname "${BASH_SOURCE[0]}")/../tools/npu_info.py
  command -v atc >/dev/null || source_set_env 2>/dev/null || true
  if ! answer=$("$PYTHON" "$info" --can-infer 2>&1); then
    reason=${answer#error: }
    return 1
  fi
  reason="ais_bench is there"
  if [ -n "$om" ]; then
    reason+=", and the .om files are those of $om"
    return 0
  fi
  if ! command -v atc >/dev/null; then
    reason+=", but no atc"
  elif [ -z "$soc_version" ] && ! answer=$("$PYTHON" "$info" --soc-version --device "$1" 2>&1); then
    reason+=", but ${answer#error: }"
  else
    soc_version=${soc_version:-$answer} reason+=" and atc can compile for ${soc_version:-$answer}"
    return 0
  fi
  for size in $3; do
    if [ ! -s "$2/resnet34_bs$size.om" ]; then
      reason+=", and no $2/resnet34_bs$size.om"
      return 1
    fi
  done
  om=$2 reason+="; every .om is in $2 and is taken as it is"
}

# Settles run_infer.sh's engine, and says why.
# shellcheck disable=SC2154 # option, output and here are that script's
choose_engine() {
  case $engine in
    onnxruntime) reason="as asked" ;;
    ais_bench) can_use_npu "${option[device]}" "$output" "${option[batch_sizes]}" || fail "--engine ais_bench: $reason" ;;
    auto) ! can_use_npu "${option[device]}" "$output" "${option[batch_sizes]}" || engine=ais_bench ;;
  esac
  [ "$engine" != auto ] || engine=onnxruntime
  [ "$engine" = ais_bench ] || [ -z "$om" ] || fail "--om $om: is for an NPU, but the engine is onnxruntime ($reason)"
  say "engine: $engine (${reason%%;*})"
  if [ "$engine" = ais_bench ]; then "$PYTHON" "${here}tools/npu_info.py" --check --quick --device "${option[device]}" || exit 1; fi
}
