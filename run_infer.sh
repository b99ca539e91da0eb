#!/usr/bin/env bash
# The guide in one line: preprocess, export, and for each batch size infer, evaluate and measure; ends with its table.
#
#   bash run_infer.sh --demo
#   bash run_infer.sh --pth resnet34-b627a593.pth --images ImageNet/val --labels ImageNet/val_label.txt
#
# A stage whose files are as it left them is skipped, so the same line goes on where a run was stopped.
# Exit code 0: the report is whole; 1: a stage failed and is named; 2: wrong usage.
set -euo pipefail
umask 027 # ais_bench of 2024 and later refuses files that others can write and folders that others can read

HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
PYTHON=${PYTHON:-python3} # the Python that CANN came with may have another name
WEIGHTS_URL=https://download.pytorch.org/models/resnet34-b627a593.pth

pth=resnet34-b627a593.pth images=ImageNet/val labels=ImageNet/val_label.txt batch_sizes="" engine=auto
output=./output loop=20 limit="" outfmt=TXT demo="" given=""

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
      --outfmt) outfmt=$2 ;;
      *) wrong_usage "unknown option $1" ;;
    esac
    shift 2
  done
  [ -z "$demo" ] || [ -z "$given" ] || wrong_usage "--demo makes its own data: leave out $given"
  [ -n "$batch_sizes" ] || batch_sizes=${demo:+1 4 8}
  [ -n "$batch_sizes" ] || batch_sizes="1 4 8 16 32 64"
  local number
  for number in $batch_sizes "$loop" ${limit:+"$limit"}; do
    [[ $number =~ ^[1-9][0-9]{0,8}$ ]] || wrong_usage "'$number' is not a positive whole number"
  done
  case $engine in auto | onnxruntime | ais_bench) ;; *) wrong_usage "--engine $engine: it is auto, onnxruntime or ais_bench" ;; esac
  case $outfmt in TXT | BIN | NPY) ;; *) wrong_usage "--outfmt $outfmt: it is TXT, BIN or NPY" ;; esac
  [ -n "$output" ] || wrong_usage "--output needs a folder"
  # A path with a leading dash would pass for an option of the scripts.
  case $output in -*) output=./$output ;; esac
  case $pth in -*) pth=./$pth ;; esac
  case $images in -*) images=./$images ;; esac
  case $labels in -*) labels=./$labels ;; esac
}

# One run in a folder at a time. The lock is the kernel's and ends with its holders: this shell and the stage it runs.
lock_output() {
  mkdir -p -- "$output/.stages"
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

# All that can be wrong with the inputs is found before the first long stage.
check_inputs() {
  command -v "$PYTHON" >/dev/null || fail "$PYTHON: not found; install Python 3.7 or newer, or set PYTHON to its name"
  "$PYTHON" - "$@" <<'EOF' || fail "install the missing packages with: $PYTHON -m pip install -r requirements.txt"
import importlib.util, sys
missing = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None]
if missing:
    sys.exit("error: %s has no %s" % (sys.executable, ", ".join(missing)))
EOF
  [ -z "$demo" ] || return 0
  [ -f "$pth" ] || fail "$pth: no such weight file; get it with: wget $WEIGHTS_URL"
  [ -d "$images" ] || fail "$images: no such folder of images; name it with --images"
  [ -f "$labels" ] || fail "$labels: no such label file; name it with --labels"
  "$PYTHON" - "$HERE" "$pth" "$images" "$labels" "${limit:-0}" <<'EOF' || exit 1
import sys
sys.path.insert(0, sys.argv[1])
import imagenet_acc_eval, imagenet_torch_preprocess, resnet34_pth2onnx
pth, images, labels, limit = sys.argv[2:5] + [int(sys.argv[5])]
resnet34_pth2onnx.check_hash(pth)
labelled = imagenet_acc_eval.read_labels(labels)
names = list(imagenet_torch_preprocess.find_images(images)[0])
without = [name for name in names[:limit or len(names)] if name not in labelled]
if without:
    sys.exit("error: %s: has no label for %d images of %s (first: %s)" % (labels, len(without), images, without[0]))
EOF
}

# What a stage's command and files look like now: command line, then number, bytes and newest change of each path's files.
look_of() {
  printf '%s\n' "$1"
  shift
  "$PYTHON" - "$@" <<'EOF'
import os, sys
for path in sys.argv[1:]:
    try:
        stats = [entry.stat() for entry in os.scandir(path)] if os.path.isdir(path) else [os.stat(path)]
        print(path, len(stats), sum(stat.st_size for stat in stats), max([stat.st_mtime_ns for stat in stats] + [0]))
    except OSError:
        print(path, "missing")
EOF
}

# stage NAME WHAT PATH... -- COMMAND...: run the command, unless it and the paths it reads and writes look as after its end.
stage() {
  local name=$1 what=$2 shown stamp paths=()
  shift 2
  while [ "$1" != -- ]; do
    paths+=("$1")
    shift
  done
  shift
  shown=$(printf '%q ' "$@")
  stamp=$output/.stages/$name
  if [ -f "$stamp" ] && [ "$(cat -- "$stamp")" = "$(look_of "$shown" "${paths[@]}")" ]; then
    echo "== $name: skipped, $what is complete and newer than its inputs"
    return 0
  fi
  rm -f -- "$stamp"
  echo "== $name: $what"
  echo "$shown"
  "$@" || return 1
  look_of "$shown" "${paths[@]}" >"$stamp.tmp"
  if grep -q ' missing$' "$stamp.tmp"; then
    echo "error: it ended well but left no ${paths[*]}" >&2
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
  pth=$tiny/resnet34-tiny.pth images=$tiny/val labels=$tiny/val_label.txt
  stage demo "a tiny data set and weights" "$pth" "$images" "$labels" -- \
    "$PYTHON" "$HERE/make_tiny_imagenet.py" "$tiny" || stop demo
}

prepare() {
  # The preprocessing knows best which of its files are finished, so it is always asked.
  local command=("$PYTHON" "$HERE/imagenet_torch_preprocess.py" resnet "$images" "$output/prep_dataset" ${limit:+--limit "$limit"})
  echo "== preprocess: images to $output/prep_dataset"
  printf '%q ' "${command[@]}" && echo
  "${command[@]}" || stop preprocess
  prepared=$(find "$output/prep_dataset" -maxdepth 1 -name '*.bin' | wc -l)
  stage export "$output/resnet34.onnx" "$pth" "$HERE/resnet34_pth2onnx.py" "$output/resnet34.onnx" -- \
    "$PYTHON" "$HERE/resnet34_pth2onnx.py" "$pth" "$output/resnet34.onnx" || stop export
}

# Inference over the data set, its accuracy, and pure inference, with ONNX Runtime at one batch size.
run_onnxruntime() {
  local size=$1 onnx=$output/resnet34.onnx infer=$HERE/onnx_infer.py
  stage "infer_bs$size" "$output/result_bs$size" \
    "$onnx" "$infer" "$output/prep_dataset" "$output/result_bs$size" "$output/result_bs${size}_summary.json" -- \
    "$PYTHON" "$infer" --model "$onnx" --input "$output/prep_dataset" --output "$output" \
    --output_dirname "result_bs$size" --outfmt "$outfmt" --batchsize "$size" || stop "infer_bs$size"
  evaluate "$size" || stop "evaluate_bs$size"
  stage "perf_bs$size" "$output/perf_bs${size}_summary.json" "$onnx" "$infer" "$output/perf_bs${size}_summary.json" -- \
    "$PYTHON" "$infer" --model="$onnx" --loop="$loop" --batchsize="$size" --output "$output" \
    --output_dirname "perf_bs$size" || stop "perf_bs$size"
}

evaluate() {
  local size=$1
  stage "evaluate_bs$size" "$output/result_bs$size.json" \
    "$output/result_bs$size" "$labels" "$HERE/imagenet_acc_eval.py" "$output/result_bs$size.json" -- \
    "$PYTHON" "$HERE/imagenet_acc_eval.py" "$output/result_bs$size" "$labels" "$output" "result_bs$size.json" \
    --expect "$prepared"
}

main() {
  parse_args "$@"
  command -v "$PYTHON" >/dev/null || fail "$PYTHON: not found; install Python 3.7 or newer, or set PYTHON to its name"
  trap 'echo "interrupted; what was finished is kept, the same line goes on from here" >&2; exit 130' INT TERM
  check_inputs numpy PIL tqdm torch torchvision onnx onnxruntime
  lock_output
  rm -f -- "$output/report.md" "$output/report.json" # an old report must not pass for this run's, should this run fail
  [ -z "$demo" ] || make_demo
  prepare
  local size
  for size in $batch_sizes; do
    run_onnxruntime "$size"
  done
  "$PYTHON" "$HERE/report.py" "$output" --batch-sizes "$batch_sizes" --dataset "$images"
}

main "$@"
