#!/usr/bin/env bash
# Compile the ONNX model for the NPU, one .om a batch size (the guide's stage "ONNX to OM").
#
#   bash run_atc.sh
#   bash run_atc.sh --onnx resnet34.onnx --output models --batch-sizes "1 8" --soc-version Ascend310P3 -- --precision_mode=force_fp32
#   bash run_atc.sh --batch-sizes "1 8" --aipp     # the .om takes uint8 pixels and normalises them itself
#
# NAME.om.json beside each .om says what it was made from; it is kept while all of that is the same.
# Exit code 0: every .om is there; 1: at least one is not, and is named; 2: wrong usage.
set -euo pipefail
unset CDPATH
umask 027

PYTHON=${PYTHON:-python3}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Where CANN's installers put its environment: as root, as a user, and in newer releases.
SET_ENV_PLACES=(/usr/local/Ascend/ascend-toolkit/set_env.sh "${HOME:-}/Ascend/ascend-toolkit/set_env.sh" /usr/local/Ascend/cann/set_env.sh)

onnx=./resnet34.onnx output="" batch_sizes="1 4 8 16 32 64" soc_version="" device="" force="" aipp="" more=()

usage() {
  cat <<'EOF'
usage: bash run_atc.sh [options] [-- more atc options]
  --onnx FILE               the model                    (default: resnet34.onnx)
  --output DIR              folder for the .om files     (default: the current one)
  --batch-sizes "1 4"       batch sizes                  (default: "1 4 8 16 32 64")
  --soc-version NAME        the chip, for example Ascend310P3; without it npu-smi is asked
  --device N                the device whose chip is meant (default: 0)
  --aipp                    compile the normalisation in: NAME.aipp.cfg, written from the ONNX file's recipe
  --force                   compile again what is there
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
      --aipp) aipp=yes && shift && continue ;;
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
      *) wrong_usage "unknown option $1" ;;
    esac
    shift 2
  done
  local number word
  for number in $batch_sizes; do
    [[ $number =~ ^[1-9][0-9]{0,8}$ ]] || wrong_usage "batch size '$number' is not a positive whole number"
  done
  [ -n "${batch_sizes// /}" ] || wrong_usage "--batch-sizes is empty"
  [[ $device =~ ^([0-9]{1,3})?$ ]] || wrong_usage "--device '$device' is not the number of a device"
  [[ $soc_version =~ ^[A-Za-z0-9_-]*$ ]] || wrong_usage "--soc-version '$soc_version' is no name of a chip"
  for word in ${more[@]+"${more[@]}"}; do # what the record says of the .om must be so
    [[ ! $word =~ ^--(insert_op_conf|output|model|input_shape|input_format|framework|soc_version)(=|$) ]] ||
      wrong_usage "$word: this script passes that itself; --aipp is for AIPP, anything else for an atc by hand"
  done
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

# Python for what this shell cannot do: the ONNX file, hashes, records.
#   describe ONNX AIPP   what atc and the record need to know of the graph, as one line of JSON
#   field JSON KEY       one of its values
#   aipp JSON FILE       the AIPP file of its recipe
#   kept|begin|end OM    compare the record beside the .om, or write it before and after atc
python() {
  "$PYTHON" - "$@" <<'EOF'
import sys; sys.path[:] = [p for p in sys.path if p]
import hashlib, json, os, stat

def fail(message):
    sys.exit("error: " + " ".join(str(message).split()))

def read_file(path):
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            fail("%s: is no regular file" % path)
        return file.read()

def sha256(data):
    return hashlib.sha256(data).hexdigest()

def write_whole(path, text):
    temporary = os.path.join(os.path.dirname(path), ".%s.%s.tmp" % (os.path.basename(path), os.urandom(4).hex()))
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "w") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise

def describe(path, aipp):
    data = read_file(path)
    try:
        import onnx
    except ImportError as error:
        fail("the ONNX file cannot be read: %s; install it with: pip install onnx" % error)
    try:
        model = onnx.load_model_from_string(data)
        properties = {entry.key: entry.value for entry in model.metadata_props}
        recipe, calibration = (json.loads(properties.get(key, "null")) for key in ("recipe", "calibration"))
    except Exception as error:  # protobuf's errors have no common base
        fail("%s: is no ONNX model: %s" % (path, error))
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        fail("%s: has %d inputs (%s), not one" % (path, len(inputs), ", ".join(value.name for value in inputs)))
    names = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16", 11: "float64"}  # onnx.TensorProto's
    values = []
    for value in inputs + list(model.graph.output):
        tensor = value.type.tensor_type
        shape = [side.dim_value for side in tensor.shape.dim][1:]
        if 0 in shape or not tensor.shape.dim or tensor.elem_type not in names:
            fail("%s: its %s has an open shape behind the batch, or is no tensor of numbers" % (path, value.name))
        values.append({"name": value.name, "dtype": names[tensor.elem_type], "shape": shape})
    told = values[0]
    if not told["shape"]:
        fail("%s: its input %s has no shape behind the batch" % (path, told["name"]))
    if aipp and told["dtype"] != "float32":
        fail("%s: already takes %s; --aipp is for the float graph, as resnet34_pth2onnx.py writes it without --input"
             % (path, told["dtype"]))
    if aipp and (not isinstance(recipe, dict) or [recipe.get("dtype"), recipe.get("layout")] != ["float32", "CHW"]
                 or told["shape"] != [3, recipe.get("crop"), recipe.get("crop")]):
        fail("%s: carries no recipe of its float input, from which --aipp is written; export it with resnet34_pth2onnx.py" % path)
    facts = {"path": path, "sha256": sha256(data), "recipe": recipe, "calibration": calibration, "name": told["name"],
             "sides": ",".join(map(str, told["shape"])), "input": told, "outputs": values[1:]}
    print(json.dumps(dict(facts, **{key: properties.get(key) for key in ("precision", "weights", "weights_sha256")})))

def aipp_text(recipe):
    """(pixel - min_chn) * var_reci_chn: the recipe's mean and std in units of a pixel."""
    lines = ["aipp_mode: static", "input_format: RGB888_U8"]
    lines += ["src_image_size_%s: %d" % (side, recipe["crop"]) for side in "wh"]
    lines += ["min_chn_%d: %.15g" % (channel, 255 * mean) for channel, mean in enumerate(recipe["mean"])]
    lines += ["var_reci_chn_%d: %.15g" % (channel, 1 / (255 * std)) for channel, std in enumerate(recipe["std"])]
    return "aipp_op {\n%s}\n" % "".join("    %s\n" % line for line in lines)

def read_record(om):
    try:
        record = json.loads(read_file(om + ".json").decode())
        return record if isinstance(record, dict) and "om_sha256" in record else None
    except (OSError, ValueError, RecursionError):
        return None

def record_of(onnx, size, soc_version, cann, aipp, command):
    recipe, told = onnx["recipe"], onnx["input"]
    if aipp:
        recipe = dict(recipe, dtype="uint8", layout="HWC")
        told = dict(told, dtype="uint8", shape=told["shape"][1:] + told["shape"][:1])
    exact = {"--precision_mode=force_fp32", "--precision_mode=must_keep_origin_dtype", "--precision_mode_v2=origin"}
    outputs = [dict(one, dtype="float16") for one in onnx["outputs"]] if "--output_type=FP16" in command else onnx["outputs"]
    return {"onnx": onnx["path"], "onnx_sha256": onnx["sha256"], "om_sha256": None, "command": command, "soc_version": soc_version,
            "cann": cann, "precision": "int8" if onnx["precision"] == "int8" else "fp32" if exact & set(command) else "fp16",
            "batch_size": int(size), "recipe": recipe, "weights": onnx["weights"], "weights_sha256": onnx["weights_sha256"],
            "calibration": onnx["calibration"], "aipp": os.path.basename(aipp) or None, "input": told, "outputs": outputs}

def compare(om, wanted):
    """Exit code 0: it is what would be made now; 1: it must be made; 4: it is somebody else's."""
    found = read_record(om)
    if not os.path.lexists(om) or (found and found["om_sha256"] is None):  # None: an atc that did not end
        return 1
    if not found or found["om_sha256"] != sha256(read_file(om)):
        return 4
    return 0 if dict(found, om_sha256=None) == wanted else 1

def main(verb, first, *rest):
    if verb == "describe":
        describe(first, *rest)
    elif verb == "field":
        print(json.loads(first).get(rest[0], "unknown"))
    elif verb == "aipp":
        write_whole(rest[0], aipp_text(json.loads(first)["recipe"]))
    else:
        onnx = json.loads(rest[0])
        wanted = record_of(onnx, *(rest[1:5] + (list(rest[5:]),)))
        if verb == "kept":
            sys.exit(compare(first, wanted))
        if verb == "end":
            if sha256(read_file(onnx["path"])) != onnx["sha256"]:
                fail("%s: was replaced while atc compiled it; run it again" % onnx["path"])
            wanted["om_sha256"] = sha256(read_file(first))
        write_whole(first + ".json", json.dumps(wanted, indent=2) + "\n")

try:
    main(*sys.argv[1:])
except OSError as error:
    fail("%s: %s" % (error.filename, error.strerror))
EOF
}

# compile SIZE: the guide's command; 1 when there is no .om after it.
compile() {
  local size=$1 name om cfg="" status=0 facts
  name=${output:+$output/}$(basename -- "$onnx" .onnx)_bs$size
  om=$name.om
  local command=(atc --framework=5 "--model=$onnx" "--output=$name" --input_format=NCHW
    "--input_shape=$input_name:$size,$input_sides" --log=error "--soc_version=$soc_version")
  [ -z "$aipp" ] || { cfg=$name.aipp.cfg && command+=("--insert_op_conf=$cfg"); }
  command+=(${more[@]+"${more[@]}"})
  facts=("$om" "$described" "$size" "$soc_version" "$cann" "$cfg" "${command[@]}")
  python kept "${facts[@]}" || status=$?
  case $status:$force in
    0:) echo "$om: kept, it was made from this $onnx by the same command" && return 0 ;;
    4:) echo "error: $om: is there but not as this script made it; move it, name another --output, or replace it with --force" >&2
      return 1 ;;
    [014]:*) ;;
    *) return 1 ;;
  esac
  if [ -n "$cfg" ]; then python aipp "$described" "$cfg" || return 1; fi
  python begin "${facts[@]}" || return 1
  rm -f -- "$om"
  show "${command[@]}"
  log=$(mktemp)
  unfinished=("$om" "$om.json" "$log")
  status=0
  # In the background, since bash would hear Ctrl-C and SIGTERM only after it; in "wait" it hears them at once.
  "${command[@]}" >"$log" 2>&1 &
  atc=$!
  wait "$atc" || status=$?
  atc=""
  if [ "$status" -ne 0 ] || [ ! -s "$om" ]; then
    cat -- "$log" >&2
    echo "error: $om: atc failed (exit code $status, its own lines are above)" >&2
  elif python end "${facts[@]}"; then
    unfinished=("$log")
    cat -- "$log"
    echo "$om: made"
    status=made
  fi
  rm -f -- "${unfinished[@]}"
  unfinished=()
  [ "$status" = made ]
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

stopped() {
  trap '' INT TERM
  [ -z "$atc" ] || kill "$atc" 2>/dev/null || true
  rm -f -- ${unfinished[@]+"${unfinished[@]}"}
  echo "stopped; what is finished is kept, the same line goes on" >&2
  exit "$1"
}

main() {
  local info=$here/tools/npu_info.py size failed=() described input_name input_sides cann=unknown unfinished=() atc="" log
  parse_args "$@"
  trap 'stopped 130' INT
  trap 'stopped 143' TERM
  command -v "$PYTHON" >/dev/null || fail "$PYTHON: not found; install Python 3.7 or newer, or set PYTHON to its name"
  [ -f "$onnx" ] || fail "$onnx: no such ONNX model; make it with resnet34_pth2onnx.py, or name it with --onnx"
  command -v atc >/dev/null || source_set_env atc
  clean_pythonpath
  if [ -z "$soc_version" ]; then
    [ -f "$info" ] || fail "$info: not found, which asks npu-smi for the chip; pass --soc-version, for example --soc-version Ascend310P3"
    soc_version=$("$PYTHON" "$info" --soc-version ${device:+--device "$device"}) || exit 1
  fi
  described=$(python describe "$onnx" "$aipp") || exit 1
  input_name=$(python field "$described" name)
  input_sides=$(python field "$described" sides)
  if [ -f "$info" ]; then cann=$(python field "$("$PYTHON" "$info")" cann); fi
  [ -z "$output" ] || mkdir -p -- "$output" 2>/dev/null || fail "$output: cannot be made a folder of yours; name another --output"
  for size in $batch_sizes; do
    compile "$size" || failed+=("$size")
  done
  [ ${#failed[@]} -eq 0 ] || fail "no .om for batch size ${failed[*]} (the reason is above); the others are kept"
}

main "$@"
