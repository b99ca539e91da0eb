#!/usr/bin/env bash
# The guide in one line: preprocess, export, and for each batch size infer, evaluate and measure; ends with its table.
#
#   bash run_infer.sh --demo
#   bash run_infer.sh --pth resnet34-b627a593.pth --images ImageNet/val --labels ImageNet/val_label.txt
#
# On an NPU with ais_bench, elsewhere with ONNX Runtime; it says which and why. A stage whose files are as it left them is
# skipped, so the same line goes on where a run was stopped.
# Exit code 0: the report is whole; 1: a stage failed and is named; 2: wrong usage.
set -euo pipefail
umask 027 # ais_bench of 2024 and later refuses files that others can write and folders that others can read

HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
PYTHON=${PYTHON:-python3} # the Python that CANN came with may have another name
WEIGHTS_URL=https://download.pytorch.org/models/resnet34-b627a593.pth

# Where CANN's installers put its environment: as root, as a user, and in newer releases.
SET_ENV_PLACES=(/usr/local/Ascend/ascend-toolkit/set_env.sh "${HOME:-}/Ascend/ascend-toolkit/set_env.sh" /usr/local/Ascend/cann/set_env.sh)

pth=resnet34-b627a593.pth images=ImageNet/val labels=ImageNet/val_label.txt batch_sizes="" engine=auto
output=./output loop=20 limit="" outfmt=TXT demo="" given="" device=0 soc_version="" fidelity="" classes=""
why="" exports=yes bench_help="" commands=() # the command lines that made the results, for the report
failed=()                                    # "SIZE=REASON" of the batch sizes that have no whole row

usage() {
  cat <<'EOF'
usage: bash run_infer.sh [--demo] [options]
  --pth FILE            checkpoint                       (default: resnet34-b627a593.pth)
  --images DIR          images                           (default: ImageNet/val)
  --labels FILE         "FILE CLASS" lines               (default: ImageNet/val_label.txt)
  --batch-sizes "1 4"   batch sizes                      (default: "1 4 8 16 32 64"; with --demo "1 4 8")
  --engine NAME         auto, onnxruntime or ais_bench   (default: auto)
  --output DIR          folder for everything it makes   (default: ./output)
  --loop N              runs of pure inference           (default: 20)
  --limit N             only the first N images
  --outfmt FORMAT       TXT, BIN or NPY                  (default: TXT)
  --device LIST         NPUs, for example 0,1,2,3        (default: 0)
  --soc-version NAME    the chip, for example Ascend310P3; without it npu-smi is asked
  --fidelity N          compare with ONNX Runtime's results of the first N images, which tells a wrong .om
  --classes FILE        names of the classes for the report, one a line
  --demo                make a tiny data set and weights first, and run on them
EOF
}

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

wrong_usage() {
  printf 'error: %s (bash run_infer.sh --help shows the options)\n' "$*" >&2
  exit 2
}

parse_args() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage && exit 0 ;;
      --demo) demo=yes && shift && continue ;;
      --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    esac
    [ $# -ge 2 ] || wrong_usage "$1 needs a value or is unknown"
    case $1 in
      --pth) pth=$2 given=$1 ;;
      --images) images=$2 given=$1 ;;
      --labels) labels=$2 given=$1 ;;
      --batch-sizes) batch_sizes=${2//,/ } ;;
      --engine) engine=$2 ;;
      --output) output=$2 ;;
      --loop) loop=$2 ;;
      --limit) limit=$2 ;;
      --fidelity) fidelity=$2 ;;
      --classes) classes=$2 given=$1 ;;
      --outfmt) outfmt=$2 ;;
      --device) device=$2 ;;
      --soc-version) soc_version=$2 ;;
      *) wrong_usage "unknown option $1" ;;
    esac
    shift 2
  done
  [ -z "$demo" ] || [ -z "$given" ] || wrong_usage "--demo makes its own data: leave out $given"
  [ -n "$batch_sizes" ] || batch_sizes=${demo:+1 4 8}
  [ -n "$batch_sizes" ] || batch_sizes="1 4 8 16 32 64"
  local number
  for number in $batch_sizes "$loop" ${limit:+"$limit"} ${fidelity:+"$fidelity"}; do
    [[ $number =~ ^[1-9][0-9]{0,8}$ ]] || wrong_usage "'$number' is not a positive whole number"
  done
  case $engine in auto | onnxruntime | ais_bench) ;; *) wrong_usage "--engine $engine: it is auto, onnxruntime or ais_bench" ;; esac
  case $outfmt in TXT | BIN | NPY) ;; *) wrong_usage "--outfmt $outfmt: it is TXT, BIN or NPY" ;; esac
  [[ $device =~ ^[0-9]{1,3}(,[0-9]{1,3})*$ ]] || wrong_usage "--device '$device' is not a list of devices such as 0,1"
  [ -z "$(tr ',' '\n' <<<"$device" | sort | uniq -d)" ] || wrong_usage "--device $device names a device twice"
  [[ $soc_version =~ ^[A-Za-z0-9_-]*$ ]] || wrong_usage "--soc-version '$soc_version' is no name of a chip"
  [ -n "$output" ] || wrong_usage "--output needs a folder"
  # A path with a leading dash would pass for an option of the scripts.
  case $output in -*) output=./$output ;; esac
  case $pth in -*) pth=./$pth ;; esac
  case $images in -*) images=./$images ;; esac
  case $labels in -*) labels=./$labels ;; esac
  case $classes in -*) classes=./$classes ;; esac
}

# One run in a folder at a time. The lock is the kernel's and ends with its holders: this shell and the stage it runs.
lock_output() {
  mkdir -p -- "$output/.stages" 2>/dev/null || fail "$output: cannot be made a folder of yours; name another --output"
  exec 9>>"$output/.stages/lock"
  local try='import fcntl, sys; fcntl.flock(9, fcntl.LOCK_EX | int(sys.argv[1]))'
  if ! "$PYTHON" -c "$try" 4 2>/dev/null; then # 4: LOCK_NB
    local holder
    holder=$(cat -- "$output/.stages/lock")
    if [ -z "$holder" ] || kill -0 "$holder" 2>/dev/null; then
      fail "$output: another run_infer.sh (process ${holder:-just starting}) is at work there; wait for it or name another --output"
    fi
    echo "A stage of a killed run is still at work in $output; waiting for its end."
    "$PYTHON" -c "$try" 0
  fi
  echo $$ >"$output/.stages/lock"
}

# set_env.sh reads unset variables and may end in a failing command, so this shell's strictness is lifted for it.
source_set_env() {
  local place tried=("${SET_ENV_PLACES[@]}")
  [ -z "${ASCEND_SET_ENV:-}" ] || tried=("$ASCEND_SET_ENV")
  for place in "${tried[@]}"; do
    if [ -f "$place" ]; then
      set +eu
      # shellcheck disable=SC1090 # the path is known only here
      . "$place"
      set -eu
      return 0
    fi
  done
}

# Can the NPU be used? Sets why, bench_help, and exports to nothing where no atc could use the ONNX model.
# aclruntime is asked for by name, since ais_bench also imports without it.
find_ascend() {
  local size message
  if ! command -v atc >/dev/null || ! "$PYTHON" -c 'import aclruntime, ais_bench' 2>/dev/null; then
    source_set_env
    if ! message=$("$PYTHON" -c 'import aclruntime, ais_bench' 2>&1); then
      why="$PYTHON cannot import ais_bench and aclruntime: ${message##*$'\n'}"
      return 1
    fi
  fi
  if ! bench_help=$("$PYTHON" -m ais_bench --help 2>&1); then
    why="$PYTHON -m ais_bench --help fails: ${bench_help##*$'\n'}"
    return 1
  fi
  if command -v atc >/dev/null; then
    if [ -n "$soc_version" ] || soc_version=$(ask_soc_version); then
      why="ais_bench imports and atc can compile for $soc_version"
      return 0
    fi
    message=$soc_version soc_version=""
    why="atc is there, but ${message#error: }"
    case $message in # an .om that is there runs all the same only where the chip's name is all that is missing
      *"npu-smi: not found"* | *"npu-smi info failed"* | *"does not tell its soc version"*) ;;
      *) return 1 ;;
    esac
  else
    why="ais_bench imports, but there is no atc"
  fi
  for size in $batch_sizes; do
    if [ ! -s "$output/resnet34_bs$size.om" ]; then
      why="$why and no $output/resnet34_bs$size.om"
      return 1
    fi
  done
  exports="" why="ais_bench imports and every .om is in $output; they are taken as they are, --pth is not read"
  [ -n "$soc_version" ] || soc_version=$(ask_soc_version) || soc_version="NPU of unknown name"
}

# The soc version that all chosen devices share, or on stdout too the sentence that says why there is none.
ask_soc_version() {
  local one answer=""
  for one in ${device//,/ }; do
    one=$(bash "$HERE/run_atc.sh" --show-soc-version --device "$one" 2>&1) || { printf '%s' "$one" && return 1; }
    if [ -n "$answer" ] && [ "$answer" != "$one" ]; then
      printf 'the devices %s are different chips (%s, %s)' "$device" "$answer" "$one" && return 1
    fi
    answer=$one
  done
  printf '%s' "$answer"
}

choose_engine() {
  case $engine in
    onnxruntime) why="as asked" ;;
    ais_bench) find_ascend || fail "--engine ais_bench: $why" ;;
    auto) if find_ascend; then engine=ais_bench; else engine=onnxruntime; fi ;;
  esac
  echo "engine: $engine ($why)"
  [ "$engine" = onnxruntime ] || check_ais_bench_paths "$output"
}

# ais_bench of 2024 and later refuses paths for their characters, links, owners and modes; say so before it does.
check_ais_bench_paths() {
  grep -q 'divide[_-]input' <<<"$bench_help" || [[ $output == *,* ]] || return 0
  "$PYTHON" - "$@" <<'EOF' || exit 1
import os, re, stat, sys
output = sys.argv[1]
for path in sys.argv[1:]:
    full = os.path.abspath(path)
    strange = re.search(r"[^A-Za-z0-9_./-]", full)
    if strange:
        sys.exit("error: %s: ais_bench takes only A-Z a-z 0-9 _ - / . in paths, this has %r; name another --output"
                 % (" ".join(full.splitlines()), strange.group()))
    inside = sorted(entry.path for entry in os.scandir(path)) if os.path.isdir(path) and path != output else []
    for name in [path] + inside:
        if os.path.islink(name):
            sys.exit("error: %s: is a link, which ais_bench refuses; name what it points to" % name)
        if not os.path.exists(name):
            continue
        if os.path.basename(name) != os.path.basename(path) and re.search(r"[^A-Za-z0-9_./-]", os.path.basename(name)):
            sys.exit("error: %r: ais_bench takes only A-Z a-z 0-9 _ - / . in paths; rename its image" % name)
        there = os.stat(name)
        if there.st_uid != os.geteuid() and there.st_gid not in os.getgroups():
            sys.exit("error: %s: belongs to another user and group, which ais_bench refuses; make it yours" % name)
        if path == output and there.st_mode & (stat.S_IWGRP | stat.S_IRWXO):
            sys.exit("error: %s: others may use this folder, which ais_bench refuses; chmod 750 it, or name another --output" % name)
        if there.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            sys.exit("error: %s: others may write it, which ais_bench refuses; chmod -R go-w it" % name)
EOF
}

# All that can be wrong with the inputs is found before the first long stage.
check_inputs() {
  local modules=(numpy PIL tqdm matplotlib) weights="" missing
  if [ -n "$exports" ]; then
    modules+=(torch torchvision onnx onnxruntime) # onnxruntime proves the export, also for an NPU
  fi
  if [ -z "$exports" ] && [ -n "$fidelity" ]; then
    [ -f "$output/resnet34.onnx" ] || fail "--fidelity: there is no $output/resnet34.onnx to compare the .om with"
    modules+=(onnxruntime)
  fi
  missing=$("$PYTHON" -c 'import importlib.util as u, sys; print(*[n for n in sys.argv[1:] if u.find_spec(n) is None])' "${modules[@]}")
  [ -z "$missing" ] || fail "$PYTHON has no $missing; install with: $PYTHON -m pip install -r $HERE/requirements.txt"
  [ -z "$demo" ] || return 0
  if [ -n "$exports" ]; then
    [ -f "$pth" ] || fail "$pth: no such weight file; get it with: wget $WEIGHTS_URL"
    weights=$pth
  fi
  [ -d "$images" ] || fail "$images: no such folder of images; name it with --images"
  [ -f "$labels" ] || fail "$labels: no such label file; name it with --labels"
  [ -z "$classes" ] || [ -f "$classes" ] || fail "$classes: no such file of class names"
  "$PYTHON" - "$HERE" "$images" "$labels" "${limit:-0}" "$weights" <<'EOF' || exit 1
import sys
sys.path.insert(0, sys.argv[1])
import imagenet_acc_eval, imagenet_torch_preprocess, resnet34_pth2onnx
images, labels, limit, weights = sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]
if weights:
    resnet34_pth2onnx.check_hash(weights)
labelled = imagenet_acc_eval.read_labels(labels)
names = list(imagenet_torch_preprocess.find_images(images)[0])
without = [name for name in names[:limit or len(names)] if name not in labelled]
if without:
    sys.exit("error: %s: has no label for %d images of %s (first: %s)" % (labels, len(without), images, without[0]))
EOF
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

# What a stage's command and files look like now: command line, then number, bytes and newest change of each path's files.
look_of() {
  printf '%s\n' "$1"
  shift
  "$PYTHON" - "$@" <<'EOF'
import os, sys
for path in sys.argv[1:]:
    try:
        files = [os.path.join(place, name) for place, _, names in os.walk(path) for name in names] or [path]
        stats = [os.stat(name) for name in files]
        print(path, len(stats), sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats))
    except OSError:
        print(path, "missing")
EOF
}

# stage NAME OUTPUT... : INPUT... -- COMMAND...: run the command, unless it and all these files look as they did after its end.
stage() {
  local name=$1 shown stamp outputs=() inputs=()
  shift
  while [ "$1" != : ]; do outputs+=("$1") && shift; done
  while [ "$1" != -- ]; do inputs+=("$1") && shift; done
  shift
  shown=$(show "$@")
  commands+=("$shown")
  stamp=$output/.stages/$name
  if [ -f "$stamp" ] && [ "$(cat -- "$stamp")" = "$(look_of "$shown" "${outputs[@]}" "${inputs[@]:1}")" ]; then
    echo "== $name: skipped, ${outputs[0]} is complete and newer than its inputs"
    return 0
  fi
  rm -rf -- "$stamp" "${outputs[@]}"
  echo "== $name: ${outputs[0]}"
  echo "$shown"
  local status=0
  "$@" || status=$?
  if [ "$status" -ne 0 ]; then
    echo "error: stage $name failed with exit code $status" >&2
    return 1
  fi
  look_of "$shown" "${outputs[@]}" "${inputs[@]:1}" >"$stamp.tmp"
  if grep ' missing$' "$stamp.tmp" >&2; then
    echo "error: stage $name ended with exit code 0 but left the above missing" >&2
    return 1
  fi
  mv -- "$stamp.tmp" "$stamp"
}

# stop NAME: a stage failed and nothing after it can be trusted.
stop() {
  fail "stage $1 failed (its message is above); what was finished is kept, the same line goes on from here"
}

make_demo() {
  local tiny=$output/tiny-imagenet
  pth=$tiny/resnet34-tiny.pth images=$tiny/val labels=$tiny/val_label.txt classes=$tiny/class_names.txt
  stage demo "$tiny" : "$HERE/make_tiny_imagenet.py" -- "$PYTHON" "$HERE/make_tiny_imagenet.py" "$tiny" || stop demo
}

preprocess() {
  # The script knows best which of its files are finished, so it is always asked.
  local command=("$PYTHON" "$HERE/imagenet_torch_preprocess.py" resnet "$images" "$output/prep_dataset" ${limit:+--limit "$limit"})
  echo "== preprocess: $output/prep_dataset"
  commands+=("$(show "${command[@]}")")
  echo "${commands[-1]}"
  "${command[@]}" || stop preprocess
  prepared=$(find "$output/prep_dataset" -maxdepth 1 -name '*.bin' | wc -l)
}

export_onnx() {
  stage export "$output/resnet34.onnx" : "$pth" "$HERE/resnet34_pth2onnx.py" -- \
    "$PYTHON" "$HERE/resnet34_pth2onnx.py" "$pth" "$output/resnet34.onnx" || stop export
}

# ONNX Runtime's results of the first images, one at a time, for evaluate to compare with.
infer_reference() {
  stage reference "$output/reference" "$output/reference_summary.json" : "$output/resnet34.onnx" "$HERE/onnx_infer.py" \
    "$output/prep_dataset" -- "$PYTHON" "$HERE/onnx_infer.py" --model "$output/resnet34.onnx" --input "$output/prep_dataset" \
    --output "$output" --output_dirname reference --limit "$fidelity" || stop reference
}

evaluate() {
  local size=$1 reference=${fidelity:+$output/reference}
  stage "evaluate_bs$size" "$output/result_bs$size.json" : "$output/result_bs$size" "$labels" "$HERE/imagenet_acc_eval.py" \
    ${reference:+"$reference"} -- \
    "$PYTHON" "$HERE/imagenet_acc_eval.py" "$output/result_bs$size" "$labels" "$output" "result_bs$size.json" \
    --expect "$prepared" ${reference:+--reference "$reference"} && return 0
  # Where only the reference disagrees, the JSON is there all the same: the report shows it, says so and fails.
  [ -e "$output/result_bs$size.json" ]
}

# With ONNX Runtime, at one batch size: inference over the data set, its accuracy, and pure inference.
run_onnxruntime() {
  local size=$1 onnx=$output/resnet34.onnx infer=$HERE/onnx_infer.py
  stage "infer_bs$size" "$output/result_bs$size" "$output/result_bs${size}_summary.json" : "$onnx" "$infer" "$output/prep_dataset" -- \
    "$PYTHON" "$infer" --model "$onnx" --input "$output/prep_dataset" --output "$output" \
    --output_dirname "result_bs$size" --outfmt "$outfmt" --batchsize "$size" || stop "infer_bs$size"
  evaluate "$size" || stop "evaluate_bs$size"
  stage "perf_bs$size" "$output/perf_bs${size}_summary.json" "$output/perf_bs$size" : "$onnx" "$infer" -- \
    "$PYTHON" "$infer" --model="$onnx" --loop="$loop" --batchsize="$size" --output "$output" \
    --output_dirname "perf_bs$size" || stop "perf_bs$size"
}

compile() {
  local shown=(bash "$HERE/run_atc.sh" --onnx "$output/resnet34.onnx" --output "$output" --batch-sizes "$batch_sizes"
    --soc-version "$soc_version")
  echo "== compile: $output/resnet34_bs*.om"
  commands+=("$(show "${shown[@]}")")
  echo "${commands[-1]}"
  "${shown[@]}" || echo "error: stage compile failed for some batch size; the others go on" >&2
}

# give_up SIZE REASON: this batch size has no whole row; the others go on and the exit code will be 1.
give_up() {
  failed+=("$1=$2")
  echo "error: batch size $1: $2; the other batch sizes go on" >&2
}

# The same with ais_bench on one or more NPUs: the guide's two commands at one batch size.
run_ais_bench() {
  local size=$1 om=$output/resnet34_bs$1.om result=$output/result_bs$1 perf=$output/perf_bs$1 problem
  local dirname=--output_dirname on=() divide=() made=("$output/result_bs$1" "$output/result_bs${1}_summary.json")
  grep -q -e --output_dirname <<<"$bench_help" || dirname=--output-dirname
  [ "$device" = 0 ] || on=(--device "$device")
  if [[ $device == *,* ]]; then
    made=("$result") # each device has its summary inside
    # Newer ones give every device all the files unless told otherwise; a bare switch in some builds, with a value in others.
    if grep -q -e '--divide_input' <<<"$bench_help"; then divide=(--divide_input); fi
    if grep -q -e '--divide-input' <<<"$bench_help"; then divide=(--divide-input); fi
    [ ${#divide[@]} -eq 0 ] || grep -q '\[--divide[_-]input\]' <<<"$bench_help" || divide+=(1)
  fi
  if [ ! -s "$om" ]; then
    rm -rf -- "$result" "${result}_summary.json" "$result.json" "$perf" "${perf}_summary.json"
    give_up "$size" "there is no $om, atc failed"
    return
  fi
  if ! stage "infer_bs$size" "${made[@]}" : "$om" "$output/prep_dataset" -- \
    "$PYTHON" -m ais_bench --model "$om" --input "$output/prep_dataset" --output "$output" \
    "$dirname" "result_bs$size" --outfmt "$outfmt" ${on[@]+"${on[@]}"} ${divide[@]+"${divide[@]}"}; then
    rm -f -- "$result.json"
    give_up "$size" "inference with ais_bench failed"
    return
  fi
  if problem=$(missing_parts "$result" "$prepared"); [ -n "$problem" ]; then
    rm -f -- "$output/.stages/infer_bs$size" "$result.json"
    give_up "$size" "ais_bench ended with exit code 0, but $problem"
    return
  fi
  evaluate "$size" || { give_up "$size" "its accuracy cannot be judged" && return; }
  made=("${perf}_summary.json" "$perf")
  [[ $device != *,* ]] || made=("$perf")
  if ! stage "perf_bs$size" "${made[@]}" : "$om" -- \
    "$PYTHON" -m ais_bench --model="$om" --loop="$loop" --batchsize="$size" --output "$output" \
    "$dirname" "perf_bs$size" ${on[@]+"${on[@]}"}; then
    give_up "$size" "pure inference with ais_bench failed"
  elif problem=$(missing_parts "$perf" 0); [ -n "$problem" ]; then
    rm -rf -- "$output/.stages/perf_bs$size" "$perf"
    give_up "$size" "ais_bench ended with exit code 0, but $problem"
  fi
}

# missing_parts FOLDER N: says what ais_bench left out: a device's part (its summary comes last), or some of N results.
missing_parts() {
  local one place=0 found
  if [[ $device == *,* ]]; then
    for one in ${device//,/ }; do
      if [ ! -f "$1/device${one}_summary.json" ] && [ ! -f "$1/device${one}_${place}_summary.json" ]; then
        echo "the part of device $one is missing"
        return
      fi
      place=$((place + 1))
    done
  fi
  found=$(find "$1" -mindepth 1 -maxdepth 2 -name "*_0.*" ! -name '*_summary.json' | wc -l)
  [ "$2" -eq 0 ] || [ "$found" -eq "$2" ] || echo "left $found of $2 results"
}

main() {
  parse_args "$@"
  command -v "$PYTHON" >/dev/null || fail "$PYTHON: not found; install Python 3.7 or newer, or set PYTHON to its name"
  trap 'echo "interrupted; what was finished is kept, the same line goes on from here" >&2; exit 130' INT TERM
  choose_engine
  check_inputs
  lock_output
  rm -f -- "$output"/report.{md,json,png,html} # an old report must not pass for this run's, should this run fail
  [ -z "$demo" ] || make_demo
  preprocess
  local size oms=() report_failed=""
  [ -z "$exports" ] || export_onnx
  if [ "$engine" = ais_bench ]; then
    [ -z "$exports" ] || compile
    for size in $batch_sizes; do
      [ ! -e "$output/resnet34_bs$size.om" ] || oms+=("$output/resnet34_bs$size.om")
    done
    check_ais_bench_paths "$output" "$output/prep_dataset" ${oms[@]+"${oms[@]}"}
  fi
  [ -z "$fidelity" ] || infer_reference
  for size in $batch_sizes; do
    "run_$engine" "$size"
  done
  [ -n "$exports" ] || pth=""
  "$PYTHON" "$HERE/report.py" "$output" --engine "$engine" --chip "$soc_version" --device "$device" --dataset "$images" \
    --batch-sizes "$batch_sizes" --pth "$pth" ${classes:+--classes "$classes"} --commands "${commands[@]}" \
    --failed ${failed[@]+"${failed[@]}"} || report_failed=yes
  [ ${#failed[@]} -eq 0 ] || fail "no whole result for batch size $(printf '%s; ' "${failed[@]/=/: }")the report shows dashes there"
  [ -z "$report_failed" ] || exit 1
}

main "$@"
