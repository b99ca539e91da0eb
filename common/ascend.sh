# shellcheck shell=bash disable=SC2015,SC2154
# Whether this host can use an NPU; sourced by the shell scripts.

# set_env.sh reads unset variables and may end in a failing command, so this shell's strictness is lifted for it.
source_set_env() {
  local file tried=(/usr/local/Ascend/ascend-toolkit/set_env.sh "${HOME:-}/Ascend/ascend-toolkit/set_env.sh" /usr/local/Ascend/cann/set_env.sh)
  [ -z "${ASCEND_SET_ENV:-}" ] || tried=("$ASCEND_SET_ENV")
  for file in "${tried[@]}"; do
    if [ -f "$file" ]; then
      set +eu
      # shellcheck disable=SC1090 # the path is known only here
      . "$file" >/dev/null
      set -eu
      return 0
    fi
  done
}

# Can the NPU be used? Sets reason, soc_version, and om to the output folder where every .om was carried there and no atc can make them.
find_ascend() {
  local size
  command -v atc >/dev/null || source_set_env
  if ! reason=$("$PYTHON" "${here}tools/npu_info.py" --can-infer 2>&1); then
    reason=${reason#error: }
    return 1
  fi
  if [ -n "$om" ]; then
    reason="ais_bench is there, and the .om files are those of $om"
  elif ! command -v atc >/dev/null || ! soc_version=${soc_version:-$("$PYTHON" "${here}tools/npu_info.py" --soc-version --device "${option[device]}" 2>&1)}; then
    reason="ais_bench is there, but ${soc_version#error: }"
    command -v atc >/dev/null || reason="ais_bench is there, but no atc"
    for size in ${option[batch_sizes]}; do
      [ -s "$output/resnet34_bs$size.om" ] || { reason+=", and no $output/resnet34_bs$size.om" && return 1; }
    done
    om=$output soc_version="" reason+="; every .om is in $output and is taken as it is"
  else
    reason="ais_bench is there and atc can compile for $soc_version"
  fi
}
