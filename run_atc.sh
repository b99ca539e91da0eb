#!/usr/bin/env bash
# Compile the ONNX model for the NPU, one .om a batch size (the guide's stage "ONNX to OM").
#
#   bash run_atc.sh
#   bash run_atc.sh --onnx resnet34.onnx --output models --batch-sizes "1 8" --soc-version Ascend310P3 -- --precision_mode=force_fp32
#
# Exit code 0: every .om is there; 1: at least one is not, and is named; 2: wrong usage.
set -euo pipefail
umask 027

PYTHON=${PYTHON:-python3}
# Where CANN's installers put its environment: as root, as a user, and in newer releases.
SET_ENV_PLACES=(/usr/local/Ascend/ascend-toolkit/set_env.sh "${HOME:-}/Ascend/ascend-toolkit/set_env.sh" /usr/local/Ascend/cann/set_env.sh)

onnx=./resnet34.onnx output="" batch_sizes="1 4 8 16 32 64" soc_version="" device=0 device_given="" force="" show_soc="" more=()

usage() {
  cat <<'EOF'
usage: bash run_atc.sh [options] [-- more atc options]
  --onnx FILE               the model                    (default: resnet34.onnx)
  --output DIR              folder for the .om files     (default: the current one)
  --batch-sizes "1 4"       batch sizes                  (default: "1 4 8 16 32 64")
  --soc-version NAME        the chip, for example Ascend310P3; without it npu-smi is asked
  --device N                the device whose chip is meant (default: 0)
  --force                   compile again what is there
  --show-soc-version        print the soc version of the device and stop
EOF
}

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

wrong_usage() {
  printf 'error: %s (bash run_atc.sh --help shows the options)\n' "$*" >&2
  exit 2
}

# The command as a line to paste; the shape in quotes, as the guide writes it.
show() {
  local word line=""
  for word in "$@"; do
    if [[ $word =~ ^(--input_shape=)([A-Za-z0-9_.:,/-]+)$ ]]; then
      word="${BASH_REMATCH[1]}\"${BASH_REMATCH[2]}\""
    elif ! [[ $word =~ ^[A-Za-z0-9_.:,=/+@%-]+$ ]]; then
      word=$(printf '%q' "$word")
    fi
    line+="${line:+ }$word"
  done
  printf '%s\n' "$line"
}

parse_args() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage && exit 0 ;;
      --force) force=yes && shift && continue ;;
      --show-soc-version) show_soc=yes && shift && continue ;;
      --) shift && more=("$@") && break ;;
      --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    esac
    [ $# -ge 2 ] || wrong_usage "$1 needs a value or is unknown"
    case $1 in
      --onnx) onnx=$2 ;;
      --output) output=$2 ;;
      --batch-sizes) batch_sizes=${2//,/ } ;;
      --soc-version) soc_version=$2 ;;
      --device) device=$2 device_given=yes ;;
      *) wrong_usage "unknown option $1" ;;
    esac
    shift 2
  done
  local number
  for number in $batch_sizes; do
    [[ $number =~ ^[1-9][0-9]{0,8}$ ]] || wrong_usage "batch size '$number' is not a positive whole number"
  done
  [ -n "${batch_sizes// /}" ] || wrong_usage "--batch-sizes is empty"
  [[ $device =~ ^[0-9]{1,3}$ ]] || wrong_usage "--device '$device' is not the number of a device"
  [[ $soc_version =~ ^[A-Za-z0-9_-]*$ ]] || wrong_usage "--soc-version '$soc_version' is no name of a chip"
  case $onnx in */*) ;; *) onnx=./$onnx ;; esac
  case $output in -*) output=./$output ;; esac
}

# set_env.sh reads unset variables and may end in a failing command, so this shell's strictness is lifted for it.
source_set_env() {
  local tool=$1 place tried=("${SET_ENV_PLACES[@]}")
  [ -z "${ASCEND_SET_ENV:-}" ] || tried=("$ASCEND_SET_ENV")
  for place in "${tried[@]}"; do
    if [ -f "$place" ]; then
      set +eu
      # shellcheck disable=SC1090 # the path is known only here
      . "$place"
      set -eu
      echo "CANN's environment: $place"
      command -v "$tool" >/dev/null || fail "$tool: not found, even after sourcing $place"
      return 0
    fi
  done
  fail "$tool: not found, and no set_env.sh of CANN at any of: ${tried[*]}; source yours first, or set ASCEND_SET_ENV to its path"
}

# Prints Ascend and the name that npu-smi's table shows for the device, or stops with what to pass.
ask_npu_smi() {
  local remedy="pass --soc-version, for example --soc-version Ascend310P3" table status=0
  command -v npu-smi >/dev/null || fail "npu-smi: not found; install the driver, or $remedy"
  table=$(npu-smi info 2>&1) || status=$?
  [ "$status" -eq 0 ] || fail "npu-smi info failed (exit code $status): $(printf '%s' "$table" | tr '\n' ' ' | cut -c 1-200); $remedy"
  REMEDY=$remedy "$PYTHON" - "$device" "$device_given" "$table" <<'EOF'
import os, re, sys
device, given, table = int(sys.argv[1]), sys.argv[2], sys.argv[3]
remedy = os.environ["REMEDY"]
chips = []  # (number of the NPU, its name, its health, number of the device or None) in the order of the table
npu = None
for line in table.splitlines():
    if "Process" in line:
        break  # the table of processes, whose rows begin with a number too
    cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
    if not line.strip().startswith("|") or len(cells) < 2:
        continue
    if npu is None:  # first row of a device: "NPU Name | Health"
        named = re.match(r"(\d+)\s+(\S+)$", cells[0])
        npu = (int(named.group(1)), named.group(2), cells[1]) if named else None
    else:  # second row: "Chip Device | Bus-Id", in some layouts without the Device
        place = re.match(r"\d+(?:\s+(\d+))?$", cells[0])
        if place:
            chips.append(npu + (int(place.group(1)) if place.group(1) else None,))
        npu = None
if not chips:
    sys.exit("error: npu-smi info shows no device; " + remedy)
listed = ", ".join("%s %s" % (number if number is not None else place, name)
                   for place, (_, name, _, number) in enumerate(chips))
if not given and len({name for _, name, _, _ in chips}) > 1:
    sys.exit("error: this machine has different chips (%s); pass --device or --soc-version" % listed)
# Without a Device column the devices count in the order of the table; a container's may show its NPU's own number alone.
chosen = [chip for place, chip in enumerate(chips) if (chip[3] if chip[3] is not None else place) == device] or \
    [chip for chip in chips if chip[3] is None and chip[0] == device]
if not chosen:
    sys.exit("error: device %d is not in npu-smi's table (it has %s); pass another --device, or --soc-version" % (device, listed))
_, name, health, _ = chosen[0]
if health != "OK":
    sys.exit("error: device %d (%s) is not healthy, npu-smi says %s; pass another --device, or %s" % (device, name, health, remedy[5:]))
if name.startswith("Ascend") or name == "910" or not re.match(r"[A-Za-z0-9_-]+$", name):
    sys.exit("error: npu-smi calls the chip %s, which does not tell its soc version; %s" % (name, remedy.replace("310P3", "910B4")))
print("Ascend" + name)
EOF
}

# Prints the name of the graph's input and its shape behind the batch, as in "image 3,224,224".
read_input() {
  "$PYTHON" - "$onnx" <<'EOF'
import sys
path = sys.argv[1]
try:
    import onnx
except ImportError as error:
    sys.exit("error: the ONNX file cannot be read: %s; install it with: pip install onnx" % error)
try:
    graph = onnx.load(path, load_external_data=False).graph
except Exception as error:  # protobuf's errors have no common base
    sys.exit("error: %s: is no ONNX model: %s" % (path, " ".join(str(error).split())))
weights = {weight.name for weight in graph.initializer}
inputs = [value for value in graph.input if value.name not in weights]
if len(inputs) != 1:
    sys.exit("error: %s: has %d inputs (%s), not one" % (path, len(inputs), ", ".join(value.name for value in inputs)))
sides = [side.dim_value for side in inputs[0].type.tensor_type.shape.dim][1:]
if not sides or 0 in sides:
    sys.exit("error: %s: its input %s has an open shape behind the batch" % (path, inputs[0].name))
print(inputs[0].name, ",".join(map(str, sides)))
EOF
}

# compile SIZE: the guide's command; 1 when there is no .om after it.
compile() {
  local size=$1 name om shown made log status=0
  name=${output:+$output/}$(basename -- "$onnx" .onnx)_bs$size
  om=$name.om
  local command=(atc --framework=5 "--model=$onnx" "--output=$name" --input_format=NCHW
    "--input_shape=$input_name:$size,$input_sides" --log=error "--soc_version=$soc_version" ${more[@]+"${more[@]}"})
  shown=$(show "${command[@]}")
  made=$(dirname -- "$om")/.$(basename -- "$om").made # the command of the atc that made this .om to its end
  if [ -z "$force" ] && [ -s "$om" ] && [ "$om" -nt "$onnx" ] && [ "$(cat -- "$made" 2>/dev/null)" = "$shown" ]; then
    echo "$om: kept, it is newer than $onnx and made with the same options"
    return 0
  fi
  rm -f -- "$om" "$made"
  echo "$shown"
  log=$(mktemp)
  "${command[@]}" >"$log" 2>&1 || status=$?
  if [ "$status" -ne 0 ] || [ ! -s "$om" ]; then
    rm -f -- "$om"
    cat -- "$log" >&2
    echo "error: $om: atc failed (exit code $status, its own lines are above)" >&2
    rm -f -- "$log"
    return 1
  fi
  cat -- "$log"
  rm -f -- "$log"
  printf '%s' "$shown" >"$made"
  echo "$om: made"
}

main() {
  parse_args "$@"
  command -v "$PYTHON" >/dev/null || fail "$PYTHON: not found; install Python 3.7 or newer, or set PYTHON to its name"
  if [ -n "$show_soc" ]; then
    ask_npu_smi
    return
  fi
  [ -f "$onnx" ] || fail "$onnx: no such ONNX model; make it with resnet34_pth2onnx.py, or name it with --onnx"
  command -v atc >/dev/null || source_set_env atc
  [ -n "$soc_version" ] || soc_version=$(ask_npu_smi) || exit 1
  local input
  input=$(read_input) || exit 1
  input_name=${input% *} input_sides=${input##* }
  [ -z "$output" ] || mkdir -p -- "$output" 2>/dev/null || fail "$output: cannot be made a folder of yours; name another --output"
  local size failed=()
  for size in $batch_sizes; do
    compile "$size" || failed+=("$size")
  done
  [ ${#failed[@]} -eq 0 ] || fail "no .om for batch size ${failed[*]} (atc's own messages are above); the others are kept"
}

main "$@"
