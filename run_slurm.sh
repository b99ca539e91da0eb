#!/usr/bin/env bash
# usage: bash run_slurm.sh --shards N [--dry-run] [run_infer.sh's options] [-- sbatch's options]
# run_infer.sh's line as Slurm jobs, each tied to the one before: prepare, an array of shards, finish; for example
#   bash run_slurm.sh --shards 8 --pth resnet34-b627a593.pth --output output -- --partition=cpu --time=4:00:00
#   --shards N   parts of the images, each a task of the array
#   --dry-run    show what would be submitted
# The output folder, the scripts and Python must be on a file system that all nodes share. sbatch's options go to every job. The same
# line again submits only what is not finished. Exit code 0: submitted, or nothing to do; 1: not submitted; 2: wrong usage.
# shellcheck disable=SC2015 # in "A && B || fail", fail is meant when either is false, and ends the shell
set -euo pipefail
umask 027
unset CDPATH

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
shards="" dry="" output=./output options=() sbatch_options=() queued=() line=() job=""
# shellcheck source=common/shell.sh
. "$here/common/shell.sh"

usage() { sed -n '2,6s/^# //p' "${BASH_SOURCE[0]}"; } # what this file begins with

wrong_usage() {
  printf 'error: %s (bash run_slurm.sh --help shows the options)\n' "${*//$'\n'/ }" >&2
  exit 2
}

parse_args() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage && exit 0 ;;
      --dry-run) dry=yes && shift ;;
      --) shift && sbatch_options=("$@") && break ;;
      --shards=* | --output=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
      --shards) [ $# -ge 2 ] || wrong_usage "--shards needs a number" && shards=$2 && shift 2 ;;
      --output) [ $# -ge 2 ] || wrong_usage "--output needs a folder" && output=$2 && shift 2 ;;
      --stages | --stages=* | --shard | --shard=* | --check) wrong_usage "$1 is set by run_slurm.sh itself" ;;
      *) options+=("$1") && shift ;;
    esac
  done
  take_devices
  [[ $shards =~ ^[1-9][0-9]{0,3}$ ]] || wrong_usage "--shards '$shards' is not a number of shards, 1 to 9999"
  [[ ! " ${options[*]-} " =~ \ --limit[=\ ]([1-9][0-9]{0,8})\  || ${BASH_REMATCH[1]} -ge $shards ]] ||
    wrong_usage "--shards $shards is more than the ${BASH_REMATCH[1]} images of --limit"
  [ -n "$output" ] || wrong_usage "--output needs a folder"
  case $output in /*) ;; *) output=$PWD/$output ;; esac # the jobs' folder is this one, but a leading dash would be an option
}

# A task with NPUs (--gres=npu:2, --gres npu:910b4:2) takes those that the scheduler gave it, which count from 0 inside it. They are named
# here and not in the task, so that the same line finds later what they made.
take_devices() {
  local words=" ${sbatch_options[*]-} " number
  [[ " ${options[*]-} " != *" --device"[=\ ]* ]] || return 0 # the user knows better
  if [[ $words =~ [=\ ,]npu(:[^\ ,]+)?[\ ,] ]]; then
    number=${BASH_REMATCH[1]##*:}
    [[ $number =~ ^[1-9][0-9]?$ ]] || number=1
    options+=(--device "$(seq -s , 0 "$((number - 1))")")
  fi
}

# No submission while jobs of an earlier one, whose numbers OUTPUT/logs/jobs has, are queued.
refuse_queued() {
  local queued
  [ -f "$logs/jobs" ] || return 0
  # All of this user's: asked for a number that it has forgotten, squeue fails as it does when it cannot tell.
  queued=$(squeue --noheader --user="$(id -un)" --format=%F) || fail "squeue fails (its message is above), so jobs may be queued; try again"
  queued=$(grep -xF -f "$logs/jobs" <<<"$queued" | sort -un | paste -sd ' ' -) || queued=""
  [ -z "$queued" ] || fail "$output: jobs $queued of an earlier submission are still queued or running; wait, or: scancel $queued"
}

# Results of another division, or of a run in one piece, cannot be judged together with these.
refuse_other_division() {
  local folder
  for folder in "$output"/prep_dataset*/shard*_of_*/ "$output"/result_*bs*/shard*_of_*/; do
    [[ ! -d $folder || $folder == *"_of_$shards/" ]] ||
      fail "${folder%/}: is of a run in other shards than $shards; give its --shards, or name another --output"
  done
  for folder in "$output"/result_*bs*_summary.json; do
    [ ! -e "$folder" ] || fail "${folder%_summary.json}: is of a run without shards; name another --output"
  done
}

# The words of run_infer.sh's line for a part of it.
line_of() {
  line=(bash "$here/run_infer.sh" ${options[@]+"${options[@]}"} --output "$output" "$@")
}

# Is there nothing to do for this part? What run_infer.sh refuses is said now, and not in an hour in a log; only whether there is an
# NPU, or whether other CPUs than its own measured it, a login node cannot tell: the part is submitted, and ends in seconds as kept.
finished() {
  local status=0 said
  line_of "$@" --check
  said=$("${line[@]}" 2>&1 >/dev/null) || status=$?
  [[ $status -le 1 && ($said != *error:* || $said == *"error: --engine ais_bench: "*) ]] || { printf '%s\n' "$said" >&2 && exit "$status"; }
  [ "$status" -eq 0 ]
}

# A job's script: the line, started by exec so that Slurm's SIGTERM reaches it. In an array K is the task's number.
script_of() {
  local words
  words=$(printf '%q ' "${line[@]}")
  cat <<TEXT
cd -- $(printf '%q' "$PWD") || exit 1
export PYTHON=$(printf '%q' "${PYTHON:-python3}") PATH=$(printf '%q' "$PATH")
exec $words \${SLURM_ARRAY_TASK_ID:+--shard "\$SLURM_ARRAY_TASK_ID/$shards"}
TEXT
}

# submit NAME LOG SBATCH-OPTION...: a job that runs the present line; its number becomes $job. Of equal options sbatch takes the last:
# the name may be the user's, but not what ties the jobs together. Wrapped, and before the user's: a stray word there would
# be run in place of a script, but is refused beside --wrap.
submit() {
  local name=$1 log=$2 command said quote="'\\''"
  shift 2
  said=$(script_of)
  command=(sbatch --job-name="resnet34-$name" --requeue --wrap="exec bash -c '${said//\'/$quote}'")
  [ -z "$dry" ] || command=("${command[@]:0:3}")
  command+=(${sbatch_options[@]+"${sbatch_options[@]}"} --parsable --chdir="$PWD"
    --kill-on-invalid-dep=yes --open-mode=append --output="${logs//%/%%}/$log.txt" "$@")
  if [ -n "$dry" ]; then
    printf '%q ' "${command[@]}" >&2
    printf '\n  exec %s\n' "$(printf '%q ' "${line[@]}")" >&2
    job=$name
    return
  fi
  job=$("${command[@]}") && job=${job%%;*} && [[ $job =~ ^[0-9]+$ ]] || {
    [ ${#queued[@]} -eq 0 ] || scancel "${queued[@]}" || true
    fail "sbatch refused the job $name (its message is above), so nothing is queued"
  }
  queued+=("$job")
  said=$(mktemp -- "$logs/.jobs.XXXXXXXX") && printf '%s\n' "${queued[@]}" >"$said" && mv -fT -- "$said" "$logs/jobs" ||
    fail "$logs/jobs: cannot be written (the message is above), but jobs ${queued[*]} are queued; to begin anew: scancel ${queued[*]}"
}

main() {
  parse_args "$@"
  local tool logs=$output/logs tie=afterok after=() prepare="" array="" todo=() number
  for tool in sbatch squeue scancel; do
    [ -n "$dry" ] || command -v "$tool" >/dev/null || fail "$tool: not found; run this on a machine that submits to a Slurm cluster"
  done
  [ -n "$dry" ] || refuse_queued
  refuse_other_division
  if ! finished --stages export,compile; then prepare=todo; fi
  for ((number = 1; number <= shards; number++)); do
    if [ -n "$prepare" ] || ! finished --stages preprocess,infer --shard "$number/$shards"; then todo+=("$number"); fi
  done
  if [ -z "$prepare" ] && [ ${#todo[@]} -eq 0 ] && finished --stages evaluate,perf,report; then
    echo "$output: everything is finished; nothing was submitted"
    return
  fi
  [ -n "$dry" ] || mkdir -p -- "$logs" || fail "$logs: cannot be made"
  if [ -n "$prepare" ]; then
    line_of --stages export,compile
    submit prepare prepare-%j
    # With --int8 it also fails for that alone; then each shard looks for what it needs.
    if [[ " ${line[*]} " == *" --int8 "* ]]; then tie=afterany; fi
    prepare=$job after=(--dependency="$tie:$job")
  fi
  if [ ${#todo[@]} -gt 0 ]; then
    line_of --stages preprocess,infer
    submit shard shard-%a-%A --array="$(IFS=, && echo "${todo[*]}")" ${after[@]+"${after[@]}"}
    array=$job after=(--dependency="afterok:$job")
  fi
  line_of --stages evaluate,perf,report
  submit finish finish-%j --exclusive ${after[@]+"${after[@]}"}
  [ -z "$dry" ] || return 0
  echo "prepare: ${prepare:-finished before}; shards ${todo[*]:-none} of $shards: ${array:-finished before}; finish: $job"
  echo "follow them with: squeue --jobs=$(IFS=, && echo "${queued[*]}")"
  echo "what they say: $logs; the report, when they are done: $output/report.md"
}

main "$@"
