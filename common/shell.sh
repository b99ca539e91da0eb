# shellcheck shell=bash disable=SC2015
# What the shell scripts share; sourced.
# shellcheck disable=SC2034 # child is read where it is sourced, too

child="" # the process that a signal ends, too

fail() {
  printf 'error: %s\n' "${*//$'\n'/ }" >&2
  exit 1
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

# In the background, so that a signal is answered at once and handed on; a command in the foreground would keep it waiting.
run_child() {
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
  echo "stopped; what was finished is kept, the same line goes on" >&2 || true
  exit "$1"
}

# lock_output FOLDER SHARD: one run in a folder at a time, but several shards, each alone in its part. The kernel's lock ends with its
# holders, this shell and the stage it runs; a stage of a killed run is waited for.
lock_output() {
  local output=$1 shard=$2
  mkdir -p -- "$output" 2>/dev/null && [ -w "$output" ] || fail "$output: cannot be made a folder of yours; name another --output"
  exec 8<>"$output/.lock"
  if [ -z "$shard" ]; then
    take_lock 8 -x "$output/.lock"
  else
    take_lock 8 -s "$output/.lock"
    exec 9<>"$output/.lock.shard${shard/\//_of_}"
    take_lock 9 -x "$output/.lock.shard${shard/\//_of_}"
  fi
}

take_lock() {
  local holder
  if ! flock -n "$2" "$1"; then
    holder=$(cat -- "$3")
    if [ -z "$holder" ] || kill -0 "$holder" 2>/dev/null; then
      fail "$output: another run_infer.sh (process ${holder:-just starting}) is at work there; wait for it or name another --output"
    fi
    echo "A stage of a killed run is still at work in $output; waiting for its end." >&2
    flock "$2" "$1"
  fi
  [ "$2" = -s ] || echo $$ 2>/dev/null >"$3" || fail "$output: nothing can be written there (a full disk?)"
}
