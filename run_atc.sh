#!/usr/bin/env bash
# Compile the ONNX model for the NPU, one .om a batch size (the guide's stage "ONNX to OM").
#
#   bash run_atc.sh
#   bash run_atc.sh --onnx resnet34.onnx --output models --batch-sizes "1 8" -- --precision_mode=force_fp32
#   bash run_atc.sh --batch-sizes "1 8" --aipp     # the .om takes uint8 pixels and normalises them itself
#   bash run_atc.sh --record resnet34_bs1.om --onnx resnet34.onnx    # one that was compiled by hand
#
# NAME.om.json beside each .om says what it was made from; it is kept while all of that is the same.
# Exit code 0: every .om is there; 1: at least one is not, and is named; 2: wrong usage; 130, 143: stopped.
set -euo pipefail
unset CDPATH
umask 027

PYTHON=${PYTHON:-python3}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
info=$here/tools/npu_info.py
# shellcheck source=common/shell.sh
. "$here/common/shell.sh"
# shellcheck source=common/cann.sh
. "$here/common/cann.sh"

# Every variable is set before it is read, so that nothing of the same name in the caller's environment counts.
onnx=./resnet34.onnx output="" batch_sizes="1 4 8 16 32 64" soc_version="" device="" aipp="" overwrite="" check="" record=""
more=() log="" unfinished=()

usage() {
  cat <<'TEXT'
usage: bash run_atc.sh [options] [-- more atc options]      for example: bash run_atc.sh --batch-sizes "1 4"
Compiles resnet34.onnx into resnet34_bsN.om, one for each batch size N, by the guide's atc line.
  --onnx FILE               the model                    (default: resnet34.onnx)
  --output DIR              folder for the .om files     (default: the current one)
  --batch-sizes "1 4"       batch sizes                  (default: "1 4 8 16 32 64")
  --soc-version NAME        the chip, for example Ascend310P3; without it npu-smi is asked
  --device LIST             the devices whose chip is meant, for example 0,1
  --aipp                    compile the normalisation in: NAME.aipp.cfg, written from the ONNX file's recipe
  --overwrite               compile again what is there (--force: the same)
  --check                   do nothing; exit code 0 when every .om is there and made from just this
  --record OM               write the record of an .om compiled by hand, after comparing it with --onnx
TEXT
}

wrong_usage() {
  printf 'error: %s (bash run_atc.sh --help shows the options)\n' "${*//$'\n'/ }" >&2
  exit 2
}

parse_args() {
  local word
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage && exit 0 ;;
      --overwrite | --force) overwrite=--overwrite && shift && continue ;;
      --aipp) aipp=--aipp && shift && continue ;;
      --check) check=--check && shift && continue ;;
      --) shift && more=("$@") && break ;;
      --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    esac
    [ $# -ge 2 ] || wrong_usage "$1 needs a value or is unknown"
    case $1 in
      --onnx) onnx=$2 ;;
      --output) output=$2 ;;
      --batch-sizes) batch_sizes=${2//,/ } ;;
      --soc-version) soc_version=$2 ;;
      --device) device=$2 ;;
      --record) record=$2 ;;
      *) wrong_usage "unknown option $1" ;;
    esac
    shift 2
  done
  for word in $batch_sizes; do
    [[ $word =~ ^[1-9][0-9]{0,8}$ ]] || wrong_usage "batch size '$word' is not a positive whole number"
  done
  [ -n "${batch_sizes// /}" ] || wrong_usage "--batch-sizes is empty"
  [[ $device =~ ^([0-9]{1,3}(,[0-9]{1,3})*)?$ ]] || wrong_usage "--device '$device' is not the number of a device"
  [[ $soc_version =~ ^[A-Za-z0-9_-]*$ ]] || wrong_usage "--soc-version '$soc_version' is no name of a chip"
  for word in ${more[@]+"${more[@]}"}; do # what the record says of the .om must be so
    [[ ! $word =~ ^--(insert_op_conf|output|model|input_shape|input_format|framework|soc_version)(=|$) ]] ||
      wrong_usage "$word: this script passes that itself; --aipp is for AIPP, anything else for an atc by hand and --record"
  done
  case $onnx in */*) ;; *) onnx=./$onnx ;; esac
  case $output in -*) output=./$output ;; esac
}

# om_record VERB [OPTION ...]: tools/om_record.py, with what this script was told.
om_record() {
  "$PYTHON" "$here/tools/om_record.py" "$1" --onnx="$onnx" --soc-version="$soc_version" ${aipp:+"$aipp"} "${@:2}" -- \
    ${more[@]+"${more[@]}"}
}

# The command in place of this process, so that a signal reaches it.
to_log() {
  exec "$@" >"$log" 2>&1
}

# compile NAME SIZE INPUT SIDES: the guide's command; 1 when there is no .om after it.
compile() {
  local name=$1 size=$2 shape="$3:$2,$4" status=0 reason line
  local command=(atc --framework=5 "--model=$onnx" "--output=$name" --input_format=NCHW "--input_shape=$shape" --log=error
    "--soc_version=$soc_version")
  [ -z "$aipp" ] || command+=("--insert_op_conf=$name.aipp.cfg")
  command+=(${more[@]+"${more[@]}"})
  line=$(show "${command[@]}")
  line=${line/"--input_shape=$shape"/"--input_shape=\"$shape\""} # as the guide writes it
  unfinished+=("$name.om" "$name.om.json")
  rm -f -- "$name.om"
  printf '%s\n' "$line"
  run_child to_log "${command[@]}" || status=$?
  if [ "$status" -ne 0 ] || [ ! -s "$name.om" ]; then
    cat -- "$log" >&2
    reason=$("$PYTHON" "$info" --explain "$log") || true
    [ "$status" -ne 137 ] || reason="it was killed; the memory may have run out"
    echo "error: $name.om: atc failed (exit code $status): ${reason:-its own lines are above}" >&2
  elif om_record finish --om-prefix="${name%_bs*}" --batch-sizes="$size" --command="$line"; then
    cat -- "$log"
    echo "$name.om: made"
    unfinished=("$log")
    return 0
  fi
  rm -f -- "$name.om" "$name.om.json"
  return 1
}

main() {
  local prefix size plan lines=() failed=() foreign=""
  parse_args "$@"
  trap 'rm -f -- ${unfinished[@]+"${unfinished[@]}"}' EXIT
  trap 'stopped 130' INT
  trap 'stopped 143' TERM
  command -v "$PYTHON" >/dev/null || fail "$PYTHON: not found; install Python 3.7 or newer, or set PYTHON to its name"
  [ -f "$onnx" ] || fail "$onnx: no such ONNX model; make it with resnet34_pth2onnx.py, or name it with --onnx"
  clean_pythonpath
  if [ -n "$record" ]; then
    [ -f "$record" ] || fail "$record: no such .om"
    om_record record --om="$record" --batch-sizes="$batch_sizes" --device="${device%%,*}"
    exit
  fi
  command -v atc >/dev/null || source_set_env || exit 1
  command -v atc >/dev/null || fail "atc: not found, even after CANN's set_env.sh was sourced; install CANN's toolkit"
  [ -n "$soc_version" ] || soc_version=$("$PYTHON" "$info" --soc-version ${device:+--device "$device"}) || exit 1
  if [ -z "$check" ]; then
    mkdir -p -- "${output:-.}" 2>/dev/null || fail "$output: cannot be made a folder of yours; name another --output"
    exec 7>>"${output:-.}/.run_atc.lock" # atc holds it, too: that of a killed run is not disturbed
    flock -n 7 || fail "${output:-.}: another run_atc.sh, or the atc of a killed one, is at work there; wait for its end"
  fi
  prefix=${output:+$output/}$(basename -- "$onnx" .onnx)
  plan=$(om_record plan --om-prefix="$prefix" --batch-sizes="$batch_sizes" $overwrite $check) || foreign=1
  [ -z "$check" ] || exit "${foreign:-0}"
  mapfile -t lines <<<"$plan"
  [ -n "$plan" ] || exit 1
  [ ${#lines[@]} -le 3 ] || printf '%s\n' "${lines[@]:3}"
  [ -z "${lines[2]-}" ] || "$PYTHON" "$info" --check --quick --compile || exit 1
  log=$(mktemp)
  unfinished=("$log")
  for size in ${lines[2]-}; do
    compile "${prefix}_bs$size" "$size" "${lines[0]}" "${lines[1]}" || failed+=("$size")
  done
  unfinished=("$log")
  [ ${#failed[@]} -eq 0 ] || fail "no .om for batch size ${failed[*]} (the reason is above); the others are kept"
  [ -z "$foreign" ] || exit 1
}

main "$@"
