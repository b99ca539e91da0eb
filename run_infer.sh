#!/usr/bin/env bash
# The guide in one line: export, compile, preprocess, and for each batch size infer, evaluate and measure; ends with its table.
#
#   bash run_infer.sh --demo
#   bash run_infer.sh --pth resnet34-b627a593.pth --images ImageNet/val --labels ImageNet/val_label.txt
#
# Each stage knows whether its work is done: the same line goes on where a run was stopped. --help shows the options. Exit code 0:
# the report is whole; 1: a stage failed and is named; 2: wrong usage; 3: a verdict against the results; 130, 143: stopped.
# shellcheck disable=SC2015 # in "A && B || fail", fail is meant when either is false, and ends the shell
set -euo pipefail
umask 027 # newer ais_bench refuses files that others can write and folders that others can read

here=$(dirname -- "${BASH_SOURCE[0]}")/
[ "$here" != ./ ] || here="" # so that commands are shown as the guide writes them
PYTHON=${PYTHON:-python3}    # the Python that CANN came with may have another name
ALL_STAGES=export,compile,preprocess,infer,evaluate,perf,report

declare -A option=()                                          # of the command line, as tools/run_options.py gives them
recipe=() gates=() report_options=() quantization=()          # options that go on to the scripts as they are
engine="" reason="" soc_version="" om="" output="" shard=""   # which engine and why; the chip; the folder of .om files
commands=() failed=() code=1 verdict="" prepared="" graph="" precisions=fp32 parts=("") uncompiled=""
# shellcheck source=common/shell.sh
. "${here:-./}common/shell.sh"
# shellcheck source=common/cann.sh
. "${here:-./}common/cann.sh"

say() { [ -n "${option[quiet]}" ] || printf '%s\n' "$*"; }

read_options() {
  local file key value status=0
  file=$(mktemp) || fail "TMPDIR: is no folder to write in (the message above)"
  "$PYTHON" "${here}tools/run_options.py" "$@" 3>"$file" || status=$?
  while IFS= read -r -d '' key && IFS= read -r -d '' value; do
    case $key in
      recipe) recipe+=("$value") ;;
      gate) gates+=("$value") ;;
      report) report_options+=("$value") ;;
      quantize) quantization+=("$value") ;;
      *) option[$key]=$value ;;
    esac
  done <"$file"
  rm -f -- "$file"
  [ "$status" -eq 0 ] && [ ${#option[@]} -gt 0 ] || exit "$status" # without options it was --help
  output=${option[output]} shard=${option[shard]} soc_version=${option[soc_version]} om=${option[om]} engine=${option[engine]}
  prepared=${option[prepared]} precisions+=${option[int8]:+ int8}
}

selected() { [[ ,${option[stages]}, == *",$1,"* ]]; }

# Does a selected stage use what this one leaves? Images need no model, and pure inference needs no images.
needed() {
  local word users=${ALL_STAGES#*"$1",}
  case $1 in export | compile) users=${users/preprocess,/} ;; *) users=${users/perf,/} ;; esac
  for word in ${option[stages]//,/ }; do
    [[ ,$users, != *",$word,"* ]] || return 0
  done
  return 1
}

# stage PART COMMAND...: run it where --stages has PART; else, where a later stage is selected, its work must be done, by this line.
stage() {
  local part=$1 status=0 again=${option[force]}
  shift
  selected "$part" || needed "$part" || return 0
  commands+=("$(show "$@")")
  if [ -n "${option[check]}" ] || ! selected "$part"; then
    "$@" --check >/dev/null && return
    selected "$part" || fail "stage $part is not done, or by another line or of other files: $(show "$@"); have" \
      "$part in --stages, too${shard:+ (all but preprocess and infer in a line without --shard)}"
    say "== $part: is to be done" && exit 1
  fi
  [ "$part" != perf ] || again+=${option[force_perf]}
  say "== $part"$'\n'"$(show "$@")"
  if [ -n "${option[quiet]}" ] && [ "$part" != report ]; then exec 7>/dev/null; else exec 7>&1; fi
  run_child "$@" ${again:+--overwrite} >&7 || status=$?
  if [ "$status" -eq 3 ] && [[ $part =~ ^(evaluate|report)$ ]]; then # a verdict against the results is no failure of the stage
    verdict=yes status=0
  fi
  return "$status"
}

# must STAGE...: nothing after a stage that fails can be trusted.
must() {
  stage "$@" || fail "stage $1 failed (its message is above); what was finished is kept: mend that, and the same line goes on"
}

# give_up PRECISION:SIZE REASON: this row is not whole; the others go on and the exit code will be 1.
give_up() {
  local row=$1
  [ "$engine" = onnxruntime ] || row=${row/fp32/fp16} # which an NPU makes of it
  failed+=("$row=$2") code=1
  echo "error: ${row/:/, batch size }: $2; the others go on" >&2
}

give_up_int8() { # REASON
  # A shard ends well without INT8; the whole run says that it is missing.
  [ -z "$shard" ] || echo "warning: no INT8 in this shard: $1" >&2
  [ -n "$shard" ] || for size in ${option[batch_sizes]}; do give_up "int8:$size" "$1"; done
  option[int8]=""
}

# For ONNX Runtime, for atc, or for the reference that --fidelity compares an .om with.
exports() { [ "$engine" = onnxruntime ] || [ -z "$om" ] || [ -n "${option[fidelity]}" ]; }

check_packages() {
  local list=$om/resnet34_int8.onnx.calibration.txt modules=(numpy PIL tqdm xxhash)
  ! selected report || modules+=(matplotlib jinja2)
  if [ "$engine" = onnxruntime ] || [ -n "${option[fidelity]}" ]; then modules+=(onnxruntime onnx); fi
  if exports && selected export; then modules+=(onnxruntime onnx torch torchvision); fi
  "$PYTHON" "${here}tools/run_options.py" --need "${modules[@]}" || exit 1
  [ -n "${option[int8]}" ] && [ "$engine" = ais_bench ] || return 0
  [ -n "$om" ] || command -v amct_onnx >/dev/null || give_up_int8 "amct_onnx is not found, so there is no INT8 model for the NPU"
  [ -z "$om" ] || [ -e "$list" ] || ! selected evaluate ||
    fail "$list: no such file; copy it along with the .om files: INT8 is not judged on what it lists"
}

preprocess() { # PART FOLDER TYPE [more options]
  local part=$1 folder=$2 type=$3
  shift 3
  # What may have been removed since is looked at where it is there, and needed by the inference alone.
  { [ -e "$folder" ] && [ -d "${option[images]}" ]; } || selected "$part" || selected infer || return 0
  [ "$type" = float32 ] || set -- --dtype "$type" "$@"
  must "$part" "$PYTHON" "${here}imagenet_torch_preprocess.py" resnet "${option[images]}" "$folder" --labels "${option[labels]}" \
    ${option[limit]:+--limit "${option[limit]}"} "$@" ${recipe[@]+"${recipe[@]}"}
}

export_onnx() { # FILE [--input uint8]
  must export "$PYTHON" "${here}resnet34_pth2onnx.py" "${option[pth]}" "$@" ${option[weights]:+--weights "${option[weights]}"} ${recipe[@]+"${recipe[@]}"}
}

# 64 images more than are calibrated on, to compare the two models on; AMCT advises 16 to 32.
quantize() { # FLOAT_ONNX TYPE
  local count=${option[calibration_images]} folder=$output/prep_calibration tool=onnxruntime status=0
  [ "$2" = float32 ] || folder+=_$2
  [ "$engine" = onnxruntime ] || { tool=amct && count=$((count < 32 ? count : 32)); }
  preprocess export "$folder" "$2" --sample "$((option[calibration_images] + 64))"
  [ -e "$folder" ] || selected export || return 0
  local command=("$PYTHON" "${here}resnet34_quantize.py" "$1" "$output/resnet34_int8.onnx" --calibration "$folder" --tool "$tool"
    --images "$count" ${quantization[@]+"${quantization[@]}"})
  selected export || ! needed export || "${command[@]}" --check >/dev/null 2>&1 ||
    { give_up_int8 "stage export left no model of just this line" && return; }
  stage export "${command[@]}" || status=$?
  [ "$status" -ne 2 ] || exit 2
  [ "$status" -ne 3 ] || { give_up_int8 "its model is broken or poor" && code=3; }
  [[ $status =~ ^[03]$ ]] || give_up_int8 "its quantisation failed"
}

compile() { # ONNX
  local size done_some="" aipp=()
  [ "${option[dtype]}" = float32 ] || aipp=(--aipp)
  local command=(bash "${here}run_atc.sh" --onnx "$1" --output "$output" --soc-version "$soc_version" --device "${option[device]}"
    ${aipp[@]+"${aipp[@]}"} --batch-sizes)
  stage compile "${command[@]}" "${option[batch_sizes]}" && return
  for size in ${option[batch_sizes]}; do
    if "${command[@]}" "$size" --check >/dev/null 2>&1; then done_some=yes; else uncompiled+=" $(basename -- "$1" .onnx)_bs$size.om"; fi
  done
  [ -n "$done_some" ] || [ "$1" = "$output/resnet34_int8.onnx" ] || fail "stage compile failed for every batch size (its message is above)"
}

prepare_models() {
  local onnx=$output/resnet34.onnx
  graph=$onnx
  [ "${option[dtype]}" = float32 ] || graph=$output/resnet34_uint8.onnx
  exports || return 0
  if [ "$engine" = ais_bench ] && [ -z "$om" ] || [ "$graph" = "$onnx" ]; then export_onnx "$onnx"; fi
  # An NPU compiles the float graph, with AIPP for pixels; ONNX Runtime takes the graph of the wanted type itself.
  if [ "$graph" != "$onnx" ] && { [ "$engine" = onnxruntime ] || [ -n "${option[fidelity]}" ]; }; then export_onnx "$graph" --input uint8; fi
  if [ "$engine" = onnxruntime ]; then
    [ -z "${option[int8]}" ] || quantize "$graph" "${option[dtype]}"
  elif [ -z "$om" ]; then
    [ -z "${option[int8]}" ] || quantize "$onnx" float32
    compile "$onnx"
    [ -z "${option[int8]}" ] || compile "$output/resnet34_int8.onnx"
  fi
}

# parts: "" where the images are prepared in one folder, else /shardK_of_N for each that was begun, in order.
find_parts() {
  local folder count
  for folder in "$prepared"/shard1_of_*/; do
    [ -d "$folder" ] || continue
    folder=${folder%/} count=${folder##*_}
    mapfile -t parts < <(seq -f "/shard%.0f_of_$count" "$count")
  done
  [ -z "$shard" ] || parts=("/shard${shard/\//_of_}")
  [ -z "${parts[0]}" ] || [ ! -e "$prepared/.recipe.json" ] || fail "$prepared: holds the whole set, not shards: no --shard, and no ${parts[0]#/} in it"
}

# row PRECISION SIZE: inference over the data set, its accuracy, and pure inference.
row() {
  local precision=$1 size=$2 suffix="" model=$graph runner=${here}onnx_infer.py on=(--batchsize "$2") more=() folder part
  [ "$precision" = fp32 ] || { suffix=_$precision && model=$output/resnet34_$precision.onnx; }
  if [ "$engine" = ais_bench ]; then
    model=${om:-$output}/resnet34${suffix}_bs$size.om runner=${here}npu_infer.py on+=(--device "${option[device]}")
    [[ " $uncompiled " != *" $(basename -- "$model") "* ]] || { give_up "$precision:$size" "atc failed, so there is no $model" && return; }
  elif [ -n "${option[provider]}" ]; then
    on+=(--provider "${option[provider]}")
  fi
  suffix+=_bs$size folder=$output/result$suffix
  for part in "${parts[@]}"; do
    [ -e "$prepared$part" ] || selected infer || continue # else the evaluation knows what it judges
    stage infer "$PYTHON" "$runner" --model "$model" --input "$prepared$part" --output "$output" --output_dirname "result$suffix$part" \
      --outfmt "${option[outfmt]}" "${on[@]}" || { give_up "$precision:$size" "its inference failed" && return; }
  done
  [ -z "$shard" ] || return 0
  [ "$precision" = fp32 ] || more=(--exclude "${om:-$output}/resnet34_int8.onnx.calibration.txt" --baseline "$output/result_bs$size")
  [ ! -e "${option[classes]}" ] || more+=(--classes "${option[classes]}")
  stage evaluate "$PYTHON" "${here}imagenet_acc_eval.py" "$folder" "${option[labels]}" "$output" "result$suffix.json" \
    ${more[@]+"${more[@]}"} ${gates[@]+"${gates[@]}"} || { give_up "$precision:$size" "its accuracy cannot be judged" && return; }
  if [ -n "${option[fidelity]}" ] && [ "$precision" = fp32 ]; then
    stage evaluate "$PYTHON" "${here}compare_scores.py" "$folder" "$output/reference_${option[fidelity]}" --json "$output/fidelity$suffix.json" ||
      { give_up "$precision:$size" "it cannot be compared with the reference" && return; }
  fi
  stage perf "$PYTHON" "$runner" "--model=$model" "${option[runs]}" "--batchsize=$size" --output "$output" \
    --output_dirname "perf$suffix" "${on[@]:2}" || give_up "$precision:$size" "its pure inference failed"
}

report() {
  [ -n "${option[check]}" ] || printf '%s\n' "# what run_infer.sh ran" "${commands[@]}" 2>/dev/null >"$output/commands.sh" ||
    fail "$output/commands.sh: cannot be written (a full disk?)"
  stage report "$PYTHON" "${here}report.py" "$output" --batch-sizes "${option[batch_sizes]}" --precisions "$precisions" \
    ${report_options[@]+"${report_options[@]}"} ${option[quiet]:+--quiet} ${failed[@]+--failed "${failed[@]}"} || exit 1
}

main() {
  local precision size part
  command -v "$PYTHON" >/dev/null || fail "$PYTHON: not found; install Python 3.7 or newer, or set PYTHON to its name"
  read_options "$@"
  trap 'stopped 130' INT && trap 'stopped 143' TERM
  if [ -z "${option[check]}" ]; then lock_output "$output" "$shard"; elif [ ! -d "$output" ]; then exit 1; fi
  choose_engine
  check_packages
  [ -z "${option[demo]}" ] || must export "$PYTHON" "${here}tools/make_tiny_imagenet.py" "$output/tiny-imagenet"
  # The export comes before the long stages: a wrong checkpoint shows in seconds.
  prepare_models
  find_parts
  for part in "${parts[@]#/shard}"; do preprocess preprocess "$prepared" "${option[dtype]}" ${part:+--shard "${part/_of_//}"}; done
  # ONNX Runtime's results of the first images, to compare an .om's with; one at a time.
  [ -z "${option[fidelity]}" ] || [ -n "$shard" ] || [ ! -e "$prepared" ] || must evaluate "$PYTHON" "${here}onnx_infer.py" --model "$graph" \
    --input "$prepared${parts[0]}" --output "$output" --output_dirname "reference_${option[fidelity]}" --limit "${option[fidelity]}"
  for precision in fp32 ${option[int8]:+int8}; do
    for size in ${option[batch_sizes]}; do row "$precision" "$size"; done
  done
  ! selected report || report
  [ ${#failed[@]} -eq 0 ] || (fail "no whole result for $(printf '%s; ' "${failed[@]/=/: }")a report shows dashes there") || exit "$code"
  [ -z "$verdict" ] || exit 3
}

{ main "$@"; exit; } # read as one, so that a run is not disturbed when this file is replaced
