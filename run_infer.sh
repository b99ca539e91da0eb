#!/usr/bin/env bash
# The guide in one line: export, preprocess, and for each batch size infer, evaluate and measure; ends with its table.
#
#   bash run_infer.sh --demo
#   bash run_infer.sh --pth resnet34-b627a593.pth --images ImageNet/val --labels ImageNet/val_label.txt
#
# On an NPU with ais_bench, elsewhere with ONNX Runtime; it says which and why. A stage is skipped when its command, its script,
# its packages, its inputs and its outputs are the same as when it ended, so the same line goes on where a run was stopped.
# Exit code 0: the report is whole; 1: a stage failed and is named; 2: wrong usage; 3: a verdict against the results;
# 130, 143: stopped.
# shellcheck disable=SC2015 # in "A && B || fail", fail is meant when either is false, and ends the shell
set -euo pipefail
umask 027 # newer ais_bench refuses files that others can write and folders that others can read
unset CDPATH

here=$(dirname -- "${BASH_SOURCE[0]}")/
[ "$here" != ./ ] || here="" # so that commands are shown as the guide writes them
PYTHON=${PYTHON:-python3}    # the Python that CANN came with may have another name
WEIGHTS_URL=https://download.pytorch.org/models/resnet34-b627a593.pth
NUMBER='-?[0-9]*\.?[0-9]+(e-?[0-9]+)?'
ALL_STAGES=export,compile,preprocess,infer,evaluate,perf,report

pth=resnet34-b627a593.pth images=ImageNet/val labels=ImageNet/val_label.txt batch_sizes="" engine=auto output=./output
loop=20 seconds="" limit="" outfmt=TXT demo="" given="" device=0 soc_version="" fidelity="" classes="" dtype=float32 int8=""
calibration_images="" gates=() report_options=() recipe=() provider="" quiet="" force="" force_perf="" stages=$ALL_STAGES
shard="" check="" reference="" slowdown="" why="" exports=yes failed=() verdict="" child=""

usage() {
  cat <<'TEXT'
usage: bash run_infer.sh [--demo] [options]
  --pth FILE            checkpoint                       (default: resnet34-b627a593.pth)
  --images DIR          images                           (default: ImageNet/val)
  --labels FILE         "FILE CLASS" lines               (default: ImageNet/val_label.txt)
  --batch-sizes "1 4"   batch sizes                      (default: "1 4 8 16 32 64"; with --demo "1 4 8")
  --engine NAME         auto, onnxruntime or ais_bench   (default: auto)
  --output DIR          folder for everything it makes   (default: ./output)
  --loop N              runs of pure inference           (default: 20)
  --seconds S           pure inference for S seconds, in place of --loop
  --limit N             only the first N images
  --outfmt FORMAT       TXT, BIN or NPY                  (default: TXT)
  --dtype TYPE          float32, or uint8: a quarter of the disk, the same results
  --int8                INT8 beside the float model, with what it costs
  --calibration-images N  images to calibrate INT8 on    (default: 500; with --demo 16)
  --fidelity N          compare with ONNX Runtime's results of the first N images, which tells a wrong .om
  --device LIST         NPUs, for example 0,1,2,3        (default: 0)
  --soc-version NAME    the chip, for example Ascend310P3; without it npu-smi is asked
  --provider NAME       ONNX Runtime's provider, with its options: NAME,KEY=VALUE
  --classes FILE        names of the classes, one a line
  --resize N --crop N --mean a,b,c --std a,b,c   for a net that was trained with others than torchvision's
  --min-top1 P --min-top5 P                      exit code 3 when the accuracy is below P percent
  --reference REPORT --max-slowdown P            put another run's figures beside these; exit code 3 when slower by P percent
  --force, --force-perf make everything, or pure inference alone, again
  --quiet               only the table, warnings and errors
  --stages LIST         a part of export,compile,preprocess,infer,evaluate,perf,report
  --shard K/N           preprocess and infer only the K-th of N blocks of the images
  --check               do nothing; exit code 0 when there is nothing to do
  --demo                make a tiny data set and weights first, and run on them
TEXT
}

fail() {
  printf 'error: %s\n' "${*//$'\n'/ }" >&2
  exit 1
}

wrong_usage() {
  printf 'error: %s (bash run_infer.sh --help shows the options)\n' "${*//$'\n'/ }" >&2
  exit 2
}

say() {
  [ -n "$quiet" ] || printf '%s\n' "$*"
}

parse_args() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage && exit 0 ;;
      --demo) demo=yes && shift && continue ;;
      --int8) int8=yes && shift && continue ;;
      --quiet) quiet=yes && shift && continue ;;
      --force | --overwrite) force=yes && shift && continue ;; # the latter is the preprocessing's word
      --force-perf) force_perf=yes && shift && continue ;;
      --check) check=yes && shift && continue ;;
      --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    esac
    [ $# -ge 2 ] || wrong_usage "$1 needs a value or is unknown"
    local value=$2
    case $1 in # a path with a leading dash would pass for an option of the scripts
      --pth | --images | --labels | --output | --classes | --reference) case $value in -*) value=./$value ;; esac ;;
    esac
    case $1 in
      --pth) pth=$value given=$1 ;;
      --images) images=$value given=$1 ;;
      --labels) labels=$value given=$1 ;;
      --classes) classes=$value given=$1 ;;
      --output) output=$value ;;
      --batch-sizes) batch_sizes=${value//,/ } && [ -n "${batch_sizes// /}" ] || wrong_usage "--batch-sizes is empty" ;;
      --engine) engine=$value ;;
      --loop) loop=$value loop_given=yes ;;
      --seconds) seconds=$value ;;
      --limit) limit=$value ;;
      --fidelity) fidelity=$value ;;
      --outfmt) outfmt=$value ;;
      --device) device=$value ;;
      --dtype) dtype=$value ;;
      --calibration-images) calibration_images=$value ;;
      --soc-version) soc_version=$value ;;
      --provider) provider=$value ;;
      --resize | --crop) [[ $value =~ ^[1-9][0-9]{0,4}$ ]] || wrong_usage "$1 '$value' is not a number of pixels" && recipe+=("$1=$value") ;;
      --mean | --std) [[ $value =~ ^$NUMBER,$NUMBER,$NUMBER$ ]] || wrong_usage "$1 '$value' is not as 0.5,0.5,0.5" && recipe+=("$1=$value") ;;
      --min-top1 | --min-top5 | --max-slowdown)
        [[ $value =~ ^[0-9]{1,3}(\.[0-9]+)?$ ]] && [ "${value%%.*}" -le 100 ] || wrong_usage "$1 '$value' is not a percentage"
        if [ "$1" = --max-slowdown ]; then slowdown=$value report_options+=("$1" "$value"); else gates+=("$1" "$value"); fi
        ;;
      --reference) reference=$value report_options+=("$1" "$value") ;;
      --stages) stages=$value ;;
      --shard) shard=$value ;;
      *) wrong_usage "unknown option $1" ;;
    esac
    shift 2
  done
  check_options
}

check_options() {
  local word
  [ -z "$demo" ] || [ -z "$given" ] || wrong_usage "--demo makes its own data: leave out $given"
  [ -z "$demo" ] || : "${batch_sizes:=1 4 8}" "${calibration_images:=16}"
  : "${batch_sizes:=1 4 8 16 32 64}" "${calibration_images:=500}"
  for word in $batch_sizes "$loop" "$calibration_images" ${limit:+"$limit"} ${fidelity:+"$fidelity"}; do
    [[ $word =~ ^[1-9][0-9]{0,8}$ ]] || wrong_usage "'$word' is not a positive whole number"
  done
  # shellcheck disable=SC2086 # words
  batch_sizes=$(printf '%s\n' $batch_sizes | awk '!seen[$0]++' | paste -sd ' ' -)
  [ -z "$seconds" ] || [[ $seconds =~ ^[0-9]{1,6}(\.[0-9]+)?$ ]] || wrong_usage "--seconds '$seconds' is not a number of seconds"
  [ -z "$seconds" ] || [ -z "${loop_given:-}" ] || wrong_usage "--loop and --seconds exclude each other"
  case $engine in auto | onnxruntime | ais_bench) ;; *) wrong_usage "--engine $engine: it is auto, onnxruntime or ais_bench" ;; esac
  case $outfmt in TXT | BIN | NPY) ;; *) wrong_usage "--outfmt $outfmt: it is TXT, BIN or NPY" ;; esac
  case $dtype in float32 | uint8) ;; *) wrong_usage "--dtype $dtype: it is float32 or uint8" ;; esac
  [ -z "$slowdown" ] || [ -n "$reference" ] || wrong_usage "--max-slowdown needs --reference"
  [[ $device =~ ^[0-9]{1,3}(,[0-9]{1,3})*$ ]] || wrong_usage "--device '$device' is not a list of devices such as 0,1"
  [ -z "$(tr ',' '\n' <<<"$device" | sort | uniq -d)" ] || wrong_usage "--device $device names a device twice"
  [[ $soc_version =~ ^[A-Za-z0-9_-]*$ ]] || wrong_usage "--soc-version '$soc_version' is no name of a chip"
  [ -n "$output" ] || wrong_usage "--output needs a folder"
  for word in ${stages//,/ }; do
    [[ ,$ALL_STAGES, == *",$word,"* ]] || wrong_usage "--stages: '$word' is not among $ALL_STAGES"
  done
  if [ -n "$shard" ]; then
    [[ $shard =~ ^([1-9][0-9]{0,5})/([1-9][0-9]{0,5})$ ]] && [ "${shard%/*}" -le "${shard#*/}" ] ||
      wrong_usage "--shard '$shard' is not K/N with K from 1 to N"
    for word in ${stages//,/ }; do
      case $word in preprocess | infer) ;; *) wrong_usage "--shard goes with --stages preprocess,infer" ;; esac
    done
  fi
}

selected() {
  [[ ,$stages, == *",$1,"* ]]
}

# Does a stage that was selected come after this one?
needed() {
  local later=,$ALL_STAGES, word
  later=${later#*",$1,"}
  for word in ${stages//,/ }; do
    [[ ,$later != *",$word,"* ]] || return 0
  done
  return 1
}

# The folder is ours when it has .stages, may become ours when it is empty (or holds only .om files carried here), else it is somebody's.
take_output() {
  local other
  if [ ! -d "$output/.stages" ] && [ -d "$output" ]; then
    other=$(find "$output/" -mindepth 1 -maxdepth 1 ! -name 'resnet34*.om' ! -name 'resnet34*.om.json' | head -n 1) || true
    [ -z "$other" ] || fail "$output: is not empty and not made by run_infer.sh (it holds $other); name another --output"
  fi
  [ ! -L "$output/.stages" ] || fail "$output/.stages: is a link, which is not followed; remove it, or name another --output"
  [ -z "$check" ] || [ -d "$output/.stages" ] || exit 1
  mkdir -p -- "$output/.stages" 2>/dev/null || fail "$output: cannot be made a folder of yours; name another --output"
  touch -- "$output/.stages/.w" 2>/dev/null && rm -f -- "$output/.stages/.w" || fail "$output: cannot be written; name another --output"
}

# One run in a folder at a time, but several shards, each alone in its part. The kernel's lock ends with its holders: this shell and
# the stage it runs.
lock_output() {
  local whole=$output/.stages/lock own=$output/.stages/lock.shard${shard/\//_of_} file
  for file in "$whole" "$own"; do
    [ ! -L "$file" ] && { [ ! -e "$file" ] || [ -f "$file" ]; } || fail "$file: is no file of run_infer.sh's; remove it"
  done
  exec 8<>"$whole"
  if [ -z "$shard" ]; then
    take_lock 8 -x "$whole"
  else
    exec 9<>"$own"
    take_lock 8 -s "$whole"
    take_lock 9 -x "$own"
  fi
}

take_lock() {
  local holder
  if ! flock -n "$2" "$1"; then
    holder=$(cat -- "$3")
    if [ -z "$holder" ] || kill -0 "$holder" 2>/dev/null; then
      fail "$output: another run_infer.sh (process ${holder:-just starting}) is at work there; wait for it or name another --output"
    fi
    say "A stage of a killed run is still at work in $output; waiting for its end."
    flock "$2" "$1"
  fi
  [ "$2" = -s ] || echo $$ >"$3"
}

# The command as a line to paste.
show() {
  local word line=""
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_.:,=/+@%\ -]+$ ]]; then
      [[ $word != *\ * ]] || word="\"$word\""
    else
      word=$(printf '%q' "$word")
    fi
    line+="${line:+ }$word"
  done
  printf '%s\n' "$line"
}

# --- What may be skipped: identity, never time ---------------------------------------------------------------------------------------

declare -A hashes=() # SHA-256 by path and state: each file is hashed once a run, unless something rewrote it

sha256_of() { # by OpenSSL where it is, which is four times as fast
  local line
  if command -v openssl >/dev/null; then line=$(openssl dgst -sha256 -r <"$1"); else line=$(sha256sum <"$1"); fi && printf '%s' "${line%% *}"
}

# look_of PATH...: into $looks a line for each: of a file its SHA-256, of a folder one of the paths, sizes and times in nanoseconds of all
# its files. $missing is the last of them that is not there; empty when all are. Not in a subshell, which would forget the hashes.
look_of() {
  local path state
  looks="" missing=""
  for path in "$@"; do
    if [ -d "$path" ]; then
      looks+=$(find -L "$path/" -name '.lock' -prune -o -type f -printf '%P %s %T@\n' | LC_ALL=C sort | sha256sum)
    elif [ -f "$path" ] && state="$path "$(stat -L -c '%d %i %s %.9Y %.9Z' -- "$path"); then
      [ -n "${hashes[$state]:-}" ] || hashes[$state]=$(sha256_of "$path") || hashes[$state]="cannot be read"
      looks+=${hashes[$state]}
    else
      looks+="missing" missing=$path
    fi
    looks+=" $path"$'\n'
  done
}

# own PATH...: record that these are ours to replace; what is there and was not made here is refused.
own() {
  local path made=$output/.stages/made
  for path in "$@"; do
    grep -qxF -e "${path#"$output"/}" "$made" 2>/dev/null && continue
    if [ -e "$path" ] || [ -L "$path" ]; then
      fail "$path: is there, but run_infer.sh did not make it; move it away, or name another --output"
    fi
    printf '%s\n' "${path#"$output"/}" >>"$made"
  done
}

# What an earlier run made must not pass for this one's and goes; but not a folder in which there is more than its stage left.
disown_results() {
  local path list other=""
  [ -z "$check" ] || return 0
  for path in "$@"; do
    grep -qxF -e "${path#"$output"/}" "$output/.stages/made" 2>/dev/null || continue
    list=$output/.stages/files.$(basename -- "$path")
    if [ -d "$path" ] && [ -f "$list" ]; then
      other=$(find "$path/" -type f -printf '%P\n' | grep -vxF -f "$list" | head -n 1) || true
      [ -z "$other" ] || fail "$path/$other: is there, but run_infer.sh did not make it; move it away, or name another --output"
    fi
    rm -rf -- "$path" "$list"
  done
}

# stage NAME PART OUTPUT... : INPUT... -- COMMAND...: run the command, unless it, its packages and all these files are what they were at
# its end. PART is its name in --stages; where that does not have it, what it made before must be of this very line. The first input is
# the script. Returns 0, 3 for a verdict, or 1 after the command failed.
stage() {
  local name=$1 part=$2 outputs=() inputs=() stamp log before path status=0
  shift 2
  while [ "$1" != : ]; do outputs+=("$1") && shift; done && shift
  while [ "$1" != -- ]; do inputs+=("$1") && shift; done && shift
  case $part in preprocess | infer) name+=${shard:+.shard${shard/\//_of_}} ;; esac
  stamp=$output/.stages/$name log=$output/.stages/said.$name
  selected "$part" || { needed "$part" && [ -f "$stamp" ]; } || return 0
  look_of "${inputs[@]}"
  before=$(show "$@")$'\n'$environment$'\n'$looks
  if ! selected "$part"; then
    [[ $(<"$stamp")$'\n' = "$before"* ]] ||
      fail "${outputs[0]}: was made by another line, from other files or with other packages; have $part in --stages, too"
    return 0
  fi
  [ -z "$force" ] || set -- "$@" ${again:+"$again"}
  if [ -z "$force" ] && { [ -z "$force_perf" ] || [ "$part" != perf ]; } && [ -f "$stamp" ] && { [ "$part" != report ] || [ -f "$log" ]; }; then
    look_of "${outputs[@]}"
    if [ "$(<"$stamp")"$'\n' = "$before$looks" ]; then
      say "== $name: skipped, ${outputs[0]} is what it was, and so is all it was made from"
      [ "$part" != report ] || cat -- "$log"
      return 0
    fi
  fi
  if [ -n "$check" ]; then
    say "== $name: is to be done"
    exit 1
  fi
  rm -f -- "$stamp"
  own "${outputs[@]}"
  [ -z "${fresh:-}" ] || disown_results "${outputs[@]}"
  for path in "${outputs[@]}"; do rm -f -- "$output/.stages/files.$(basename -- "$path")"; done
  say "== $name: ${outputs[0]}"
  say "$(show "$@")"
  if [ "$part" = report ]; then # what it says is kept: a skipped one says it again
    run "$@" >"$log" || status=$?
    cat -- "$log"
  elif [ -n "$quiet" ]; then
    run "$@" >"$log" || status=$?
    selected report || grep -E '^(PASS|FAIL)' "$log" || true # else the report says them, by row
  else
    run "$@" || status=$?
  fi
  if [ "$status" -ne 0 ]; then
    [ "$status" -eq 3 ] || printf 'error: stage %s failed with exit code %d\n' "$name" "$status" >&2
    return "$status"
  fi
  look_of "${inputs[@]}"
  if [ "$before" != "${before%%$'\n'*}"$'\n'"$environment"$'\n'"$looks" ]; then
    echo "error: stage $name: its inputs changed while it ran; run the same line again" >&2
    return 1
  fi
  look_of "${outputs[@]}"
  if [ -n "$missing" ]; then
    echo "error: stage $name ended with exit code 0 but left $missing missing" >&2
    return 1
  fi
  for path in "${outputs[@]}"; do
    [ ! -d "$path" ] || [ -n "$shard" ] || find "$path/" -type f -printf '%P\n' >"$output/.stages/files.$(basename -- "$path")"
  done
  printf '%s' "$before$looks" >"$stamp.whole" && mv -- "$stamp.whole" "$stamp"
}

# In the background, so that a signal is answered at once and handed on; a command in the foreground would keep it waiting.
run() {
  local status=0
  "$@" &
  child=$!
  wait "$child" || status=$?
  child=""
  return "$status"
}

# shellcheck disable=SC2317 # the traps call it
stopped() {
  trap '' INT TERM
  if [ -n "$child" ]; then
    kill -TERM "$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
  fi
  echo "stopped; what was finished is kept, the same line goes on from here" >&2 || true
  exit "$1"
}

# stop NAME: a stage failed and nothing after it can be trusted.
stop() {
  fail "stage $1 failed (its message is above); what was finished is kept, the same line goes on from here"
}

# give_up PRECISION:SIZE REASON: this row is not whole; the others go on and the exit code will be 1.
give_up() {
  failed+=("$1=$2")
  echo "error: ${1/:/, batch size }: $2; the others go on" >&2
}

# --- The engine ----------------------------------------------------------------------------------------------------------------------

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

# Can the NPU be used? Sets why, soc_version, and exports to nothing where the .om files are there and no atc could make them.
find_ascend() {
  local size one answer visible # where a scheduler set them, devices count from 0 among the visible ones
  IFS=, read -ra visible <<<"${ASCEND_RT_VISIBLE_DEVICES:-}"
  command -v atc >/dev/null || source_set_env
  if ! why=$("$PYTHON" "${here}tools/npu_info.py" --can-infer 2>&1); then
    why=${why#error: }
    return 1
  fi
  if ! command -v atc >/dev/null; then
    why="ais_bench is there, but no atc"
  else
    for one in ${device//,/ }; do
      [ -z "$soc_version" ] || break
      if ! answer=$("$PYTHON" "${here}tools/npu_info.py" --soc-version --device "${visible[one]:-$one}" 2>&1); then
        why="atc is there, but ${answer#error: }"
        break 2
      fi
      if [ -n "${chip:-}" ] && [ "$chip" != "$answer" ]; then
        why="the devices $device are different chips ($chip, $answer)"
        return 1
      fi
      chip=$answer
    done
    : "${soc_version:=${chip:-}}"
    if [ -n "$soc_version" ]; then
      why="ais_bench is there and atc can compile for $soc_version"
      return 0
    fi
  fi
  for size in $batch_sizes; do
    if [ ! -s "$output/resnet34_bs$size.om" ]; then
      why="$why, and no $output/resnet34_bs$size.om"
      return 1
    fi
  done
  exports="" why="$why; every .om is in $output and is taken as it is, --pth is not read"
}

choose_engine() {
  case $engine in
    onnxruntime) why="as asked" ;;
    ais_bench) find_ascend || fail "--engine ais_bench: $why" ;;
    auto) if find_ascend; then engine=ais_bench; else engine=onnxruntime; fi ;;
  esac
  say "engine: $engine ($why)"
}

# All that can be wrong with the inputs is found before the first long stage.
check_inputs() {
  local modules=(numpy PIL tqdm) file
  if selected report; then modules+=(matplotlib jinja2); fi
  if [ "$engine" = onnxruntime ] || [ -n "$fidelity" ] || selected export; then modules+=(onnxruntime onnx); fi
  if [ -n "$exports" ] && selected export; then modules+=(torch torchvision); fi
  [ -n "$exports" ] || [ -z "$int8" ] || fail "--int8: there is no atc here to compile the INT8 model; run it where CANN is"
  environment=$("$PYTHON" "${here}tools/environment.py" --need "${modules[@]}") || exit 1
  [ "$engine" = onnxruntime ] || environment+=", chip ${soc_version:-not known}"
  [ -z "$reference" ] || [ -f "$reference" ] || [ -f "$reference/report.json" ] ||
    fail "$reference: is no report.json and no folder with one; cp output/report.json of the run to compare with, or leave out --reference"
  [ -z "$demo" ] || return 0
  if [ -n "$exports" ] && selected export; then
    [ -e "$pth" ] || fail "$pth: no such weight file; get it with: wget $WEIGHTS_URL"
    [ -f "$pth" ] && [ -r "$pth" ] || fail "$pth: is no file that can be read; name the checkpoint with --pth"
  fi
  if selected preprocess; then
    [ -d "$images" ] || fail "$images: no such folder of images; name it with --images"
  fi
  [ ! -d "$labels" ] || fail "$labels: is a folder, not a label file; tools/make_val_label.py makes one of class folders"
  for file in "$labels" ${classes:+"$classes"}; do
    [ -e "$file" ] || fail "$file: no such file; name it with --labels or --classes"
    [ -f "$file" ] && [ -r "$file" ] || fail "$file: is no file that can be read"
  done
  # The evaluation compares it with the results; what the labels alone show is said now and not in an hour.
  if [ -n "$classes" ] && ! awk 'FNR == NR { names++; next } NF && $NF >= names { exit 1 }' "$classes" "$labels"; then
    fail "$classes: has fewer lines than $labels has classes; it needs one name a line"
  fi
}

# --- The stages ----------------------------------------------------------------------------------------------------------------------

make_demo() {
  local tiny=$output/tiny-imagenet
  pth=$tiny/resnet34-tiny.pth images=$tiny/val labels=$tiny/val_label.txt classes=$tiny/class_names.txt
  # The tool keeps a folder that is there and refuses another version's, so what is not the same any more goes first.
  fresh=yes stage demo export "$tiny" : "${here}tools/make_tiny_imagenet.py" -- "$PYTHON" "${here}tools/make_tiny_imagenet.py" "$tiny" ||
    stop demo
}

# export_onnx FILE [--input uint8]
export_onnx() {
  local onnx=$1
  shift
  stage "export_$(basename -- "$onnx" .onnx)" export "$onnx" : "${here}resnet34_pth2onnx.py" "$pth" -- \
    "$PYTHON" "${here}resnet34_pth2onnx.py" "$pth" "$onnx" "$@" ${recipe[@]+"${recipe[@]}"} || stop export
}

# preprocess NAME PART FOLDER TYPE [--sample N | --shard K/N]: the images as .bin files
preprocess() {
  local name=$1 part=$2 folder=$3 type=$4 script=${here}imagenet_torch_preprocess.py made
  shift 4
  made=$folder${shard:+/shard${shard/\//_of_}}
  [ -z "$shard" ] || own_part "$folder"
  local options=(--labels "$labels" ${limit:+--limit "$limit"} "$@" ${recipe[@]+"${recipe[@]}"})
  [ "$type" = float32 ] || options+=(--dtype "$type")
  again=--overwrite stage "$name" "$part" "$made" : "$script" "$images" "$labels" -- \
    "$PYTHON" "$script" resnet "$images" "$folder" "${options[@]}" || stop "$name"
}

# The folder of all shards is recorded by whichever comes first.
own_part() {
  [ -n "$check" ] || [ -d "$1" ] || own "$1"
}

quantize() {
  local source=$1 type=$2 script=${here}resnet34_quantize.py tool=() folder
  folder=$output/prep_calibration$([ "$type" = float32 ] || echo "_$type")
  fresh=yes preprocess calibration export "$folder" "$type" --sample "$((calibration_images + 64))" # 64: to compare on
  [ "$engine" = onnxruntime ] || tool=(--tool amct --images "$((calibration_images < 32 ? calibration_images : 32))") # AMCT advises 16 to 32
  [ "$engine" != onnxruntime ] || tool=(--images "$calibration_images")
  stage quantize export "$output/resnet34_int8.onnx" "$output/resnet34_int8.onnx.calibration.txt" : "$script" "$source" "$folder/.manifest" -- \
    "$PYTHON" "$script" "$source" "$output/resnet34_int8.onnx" --calibration "$folder" "${tool[@]}" || stop quantize
}

compile() {
  local onnx=$1 name size oms=() aipp=()
  name=$(basename -- "$onnx" .onnx)
  [ "$dtype" = float32 ] || aipp=(--aipp)
  for size in $batch_sizes; do oms+=("$output/${name}_bs$size.om" "$output/${name}_bs$size.om.json"); done
  again=--force stage "compile_$name" compile "${oms[@]}" : "${here}run_atc.sh" "$onnx" -- \
    bash "${here}run_atc.sh" --onnx "$onnx" --output "$output" --batch-sizes "$batch_sizes" --soc-version "$soc_version" \
    --device "${device%%,*}" ${aipp[@]+"${aipp[@]}"} ||
    echo "error: stage compile failed for some batch size; the others go on" >&2
}

# ONNX Runtime's results of the first images (where there are shards, of the first), one at a time, to compare an .om's with.
infer_reference() {
  local input=$prepared first
  for first in "$prepared"/shard1_of_*; do
    if [ ! -f "$input/.manifest" ] && [ -d "$first" ]; then input=$first; fi
  done
  stage reference evaluate "$output/reference" "$output/reference_summary.json" : "${here}onnx_infer.py" "$1" "$input/.manifest" -- \
    "$PYTHON" "${here}onnx_infer.py" --model "$1" --input "$input" --output "$output" --output_dirname reference \
    --limit "$fidelity" || stop reference
}

# One row: inference over the data set, its accuracy, and pure inference, at one precision and batch size.
row() {
  local precision=$1 size=$2 model=$3 suffix name folder status runner on=() exclude=() input=$prepared
  suffix=$([ "$precision" = fp32 ] || echo "_$precision")_bs$size
  name=result$suffix folder=$output/result$suffix
  runner=${here}onnx_infer.py on=(--batchsize "$size" ${provider:+--provider "$provider"})
  if [ "$engine" = ais_bench ]; then
    runner=${here}npu_infer.py on=(--batchsize "$size" --device "$device")
    if [ ! -s "$model" ]; then
      disown_results "$folder" "${folder}_summary.json" "$folder.json" "$output/perf$suffix" "$output/perf${suffix}_summary.json"
      give_up "$precision:$size" "there is no $model, atc failed"
      return
    fi
  fi
  local made=("$folder" "${folder}_summary.json")
  if [ -n "$shard" ]; then
    own_part "$folder"
    made=("$folder/shard${shard/\//_of_}" "$folder/shard${shard/\//_of_}_summary.json") input=$prepared/shard${shard/\//_of_}
    name=$name/shard${shard/\//_of_}
  fi
  if ! stage "infer$suffix" infer "${made[@]}" : "$runner" "$model" "$input/.manifest" -- \
    "$PYTHON" "$runner" --model "$model" --input "$input" --output "$output" --output_dirname "$name" --outfmt "$outfmt" "${on[@]}"; then
    disown_results "$folder.json"
    give_up "$precision:$size" "its inference failed"
    return
  fi
  [ "$precision" = fp32 ] || exclude=(--exclude "$output/resnet34_int8.onnx.calibration.txt" --baseline "$output/result_bs$size")
  status=0
  stage "evaluate$suffix" evaluate "$folder.json" : "${here}imagenet_acc_eval.py" "$labels" "$folder" ${exclude[@]+"${exclude[@]:1}"} \
    ${classes:+"$classes"} -- \
    "$PYTHON" "${here}imagenet_acc_eval.py" "$folder" "$labels" "$output" "$(basename -- "$folder").json" ${classes:+--classes "$classes"} \
    ${exclude[@]+"${exclude[@]}"} ${gates[@]+"${gates[@]}"} || status=$?
  case $status in
    0) ;;
    3) verdict=yes ;;
    *) disown_results "$folder.json" && give_up "$precision:$size" "its accuracy cannot be judged" && return ;;
  esac
  [ -n "$fidelity" ] || ! selected evaluate || disown_results "$output/fidelity$suffix.json"
  if [ -n "$fidelity" ] && [ "$precision" = fp32 ]; then
    status=0
    stage "fidelity$suffix" evaluate "$output/fidelity$suffix.json" : "${here}compare_scores.py" "$folder" "$output/reference" -- \
      "$PYTHON" "${here}compare_scores.py" "$folder" "$output/reference" --json "$output/fidelity$suffix.json" || status=$?
    case $status in 0) ;; 3) verdict=yes ;; *) give_up "$precision:$size" "it cannot be compared with the reference" && return ;; esac
  fi
  local runs=("--loop=$loop")
  [ -z "$seconds" ] || runs=("--seconds=$seconds")
  stage "perf$suffix" perf "$output/perf$suffix" "$output/perf${suffix}_summary.json" : "$runner" "$model" -- \
    "$PYTHON" "$runner" "--model=$model" "${runs[@]}" "--batchsize=$size" --output "$output" --output_dirname "perf$suffix" "${on[@]:2}" ||
    give_up "$precision:$size" "its pure inference failed"
}

report() {
  local precisions=$1 suffix size precision stamps=() stamp line commands=""
  for stamp in demo export_resnet34 export_resnet34_uint8 calibration quantize compile_resnet34 compile_resnet34_int8 preprocess \
    ${fidelity:+reference}; do
    stamps+=("$output/.stages/$stamp" "$output/.stages/$stamp".shard*)
  done
  for precision in $precisions; do
    for size in $batch_sizes; do
      suffix=$([ "$precision" = fp32 ] || echo "_$precision")_bs$size
      for stamp in infer evaluate ${fidelity:+fidelity} perf; do
        stamps+=("$output/.stages/$stamp$suffix" "$output/.stages/$stamp$suffix".shard*)
      done
    done
  done
  for stamp in "${stamps[@]}"; do
    if [ -f "$stamp" ]; then IFS= read -r line <"$stamp" && commands+=$line$'\n'; fi
  done
  if [ ! -f "$output/commands.sh" ] || [ "$commands" != "$(<"$output/commands.sh")"$'\n' ]; then
    [ -z "$check" ] || { say "== report: is to be done" && exit 1; }
    own "$output/commands.sh"
    printf '%s' "$commands" >"$output/.stages/commands" && mv -f -- "$output/.stages/commands" "$output/commands.sh"
  fi
  local inputs=() kind images_option=() status=0
  for precision in $precisions; do
    for size in $batch_sizes; do
      suffix=$([ "$precision" = fp32 ] || echo "_$precision")_bs$size
      for kind in "result$suffix.json" "result${suffix}_summary.json" "perf${suffix}_summary.json" ${fidelity:+"fidelity$suffix.json"}; do
        inputs+=("$output/$kind")
      done
    done
  done
  [ ! -d "$images" ] || images_option=(--images "$images")
  local force=$force
  [ ${#report_options[@]} -eq 0 ] || force=yes # whether the reference is the same is not looked at
  stage report report "$output"/report.{md,json,png,html} : "${here}report.py" "${here}report.html.jinja" "$output/commands.sh" "${inputs[@]}" -- \
    "$PYTHON" "${here}report.py" "$output" --batch-sizes "$batch_sizes" --precisions "$precisions" \
    ${images_option[@]+"${images_option[@]}"} ${report_options[@]+"${report_options[@]}"} ${quiet:+--quiet} \
    ${failed[@]+--failed "${failed[@]}"} || status=$?
  case $status in 0) ;; 3) verdict=yes ;; *) exit 1 ;; esac
}

main() {
  parse_args "$@"
  command -v "$PYTHON" >/dev/null || fail "$PYTHON: not found; install Python 3.7 or newer, or set PYTHON to its name"
  trap 'stopped 130' INT
  trap 'stopped 143' TERM
  take_output
  lock_output
  choose_engine
  check_inputs
  local onnx=$output/resnet34.onnx graph=$output/resnet34.onnx precisions=fp32 precision size model
  prepared=$output/prep_dataset
  if [ "$dtype" = uint8 ]; then prepared=$output/prep_dataset_uint8 graph=$output/resnet34_uint8.onnx; fi
  if selected report && [ -z "$check" ]; then # an old report must not pass for this run's, should this run fail
    [ -f "$output/.stages/report" ] || disown_results "$output"/report.{md,json,png,html}
  fi
  [ -z "$demo" ] || make_demo
  # The export comes before the long stages: a wrong checkpoint shows in seconds. An NPU compiles the float graph, with AIPP for
  # pixels; ONNX Runtime takes the graph of the wanted type itself.
  if [ -n "$exports" ]; then
    if [ "$engine" = ais_bench ] || [ "$dtype" = float32 ]; then export_onnx "$onnx"; fi
    if [ "$dtype" = uint8 ] && { [ "$engine" = onnxruntime ] || [ -n "$fidelity" ]; }; then export_onnx "$graph" --input uint8; fi
    if [ -n "$int8" ]; then
      precisions="fp32 int8"
      if [ "$engine" = ais_bench ]; then quantize "$onnx" float32; else quantize "$graph" "$dtype"; fi
    fi
    if [ "$engine" = ais_bench ]; then
      compile "$onnx"
      [ -z "$int8" ] || compile "$output/resnet34_int8.onnx"
    fi
  fi
  preprocess preprocess preprocess "$prepared" "$dtype" ${shard:+--shard "$shard"}
  [ -z "$fidelity" ] || [ -n "$shard" ] || infer_reference "$graph"
  for precision in $precisions; do
    for size in $batch_sizes; do
      model=$graph
      [ "$precision" = fp32 ] || model=$output/resnet34_int8.onnx
      if [ "$engine" = ais_bench ]; then
        model=$output/resnet34_bs$size.om
        [ "$precision" = fp32 ] || model=$output/resnet34_int8_bs$size.om
      fi
      row "$precision" "$size" "$model"
    done
  done
  if selected report; then report "$precisions"; fi
  [ ${#failed[@]} -eq 0 ] || fail "no whole result for $(printf '%s; ' "${failed[@]/=/: }")the report shows dashes there"
  [ -z "$verdict" ] || exit 3
}

{ main "$@"; exit; } # read as one, so that a run is not disturbed when this file is replaced
