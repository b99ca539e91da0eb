#!/usr/bin/env bash
# A whole Slurm cluster of two emulated nodes of one CPU each on this machine, for the tests.
#
#   bash tests/slurm_cluster.sh start DIR   then: export SLURM_CONF=DIR/slurm.conf
#   bash tests/slurm_cluster.sh stop DIR
#
# Needs Debian's slurm-wlm and munge, and root. Ports, sockets and the key are the cluster's own, under DIR.
set -euo pipefail

# Three ports in a row that nobody listens on; the first.
free_ports() {
  local first port
  while first=$((20000 + RANDOM % 12000)); do # below those that the kernel gives to clients
    for port in "$first" "$((first + 1))" "$((first + 2))"; do
      if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then continue 2; fi
    done
    echo "$first" && return
  done
}

start() {
  local dir=$1 port host
  host=$(hostname -s)
  port=$(free_ports)
  mkdir -p -- "$dir/state" "$dir/spool" "$dir/log"
  chmod 700 -- "$dir"
  head -c 1024 /dev/urandom >"$dir/munge.key"
  chmod 400 -- "$dir/munge.key"
  munged --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" --log-file="$dir/log/munged" \
    --seed-file="$dir/munge.seed" --force
  cat >"$dir/slurm.conf" <<TEXT
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld
SlurmdLogFile=$dir/log/slurmd-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1
MpiDefault=none
ReturnToService=2
KillWait=5
MinJobAge=60
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
NodeName=node1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=1
NodeName=node2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=1
PartitionName=debug Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
TEXT
  export SLURM_CONF=$dir/slurm.conf
  slurmctld -c
  local cpus # a node of one CPU has one, where there are as many
  read -ra cpus < <(python3 -c 'import os; print(*sorted(os.sched_getaffinity(0)))')
  taskset -c "${cpus[0]}" slurmd -N node1
  taskset -c "${cpus[-1]}" slurmd -N node2
  for _ in $(seq 100); do
    if [ "$(sinfo -h -N -t idle -o %N 2>/dev/null | wc -l)" -eq 2 ]; then return; fi
    sleep 0.2
  done
  cat -- "$dir"/log/* >&2
  stop "$dir"
  echo "error: the cluster did not come up (its logs are above)" >&2
  exit 1
}

stop() {
  local dir=$1 file pid pids=()
  SLURM_CONF=$dir/slurm.conf scancel --full --signal=KILL --user=root 2>/dev/null || true
  for file in "$dir"/slurmd-*.pid "$dir/slurmctld.pid" "$dir/munged.pid"; do
    if [ -f "$file" ] && pid=$(cat -- "$file") && kill "$pid" 2>/dev/null; then pids+=("$pid"); fi
  done
  for pid in ${pids[@]+"${pids[@]}"}; do
    timeout 10 tail --pid="$pid" -f /dev/null || kill -KILL "$pid" 2>/dev/null || true
  done
}

case "${1:-} $#" in
  "start 2" | "stop 2") "$1" "$2" ;;
  *) echo "usage: bash tests/slurm_cluster.sh start|stop DIR" >&2 && exit 2 ;;
esac
