#!/bin/bash
# A real SLURM of two nodes on this machine, for the tests:  cluster.sh up | down | status
#
# Runs as root, needs no systemd, and installs the Debian packages when they are missing. All it
# makes lies in $HOME_DIR; /etc/slurm stays as it is. `up` starts from a clean state unless the
# cluster already stands. Exits with 3 on a machine with a SLURM that is not ours.
set -euo pipefail

HOME_DIR=/tmp/kscout-slurm
LOGS=$HOME_DIR/logs
MUNGE_SOCKET=$HOME_DIR/munge/socket
MYSQL_SOCKET=$HOME_DIR/mysql.sock
CTLD_PORT=17900 DBD_PORT=17901 N1_PORT=17902 N2_PORT=17903
DAEMONS='slurmctld|slurmscriptd|slurmd|slurmstepd|slurmdbd|munged|mariadbd'
PACKAGES=(slurmctld slurmd slurm-client slurmdbd slurm-wlm-mysql-plugin munge mariadb-server)
FOREIGN_CONF=${SLURM_CONF:-}
export SLURM_CONF=$HOME_DIR/slurm.conf
export PATH=$PATH:/usr/sbin:/sbin

fail() { echo "cluster.sh: $2" >&2; exit "$1"; }

# --- whose processes are there ---------------------------------------------------------------
# A process is ours if it was started with our SLURM_CONF; daemons and jobs both inherit it.

is_ours() { grep -qzsxF "SLURM_CONF=$SLURM_CONF" "/proc/$1/environ"; }

daemons() {  # all SLURM, munge and database daemons of this machine: "pid name" per line
  local folder name
  for folder in /proc/[0-9]*; do
    read -r name <"$folder/comm" || continue
    # a process that ended but was not waited for has no exe any more
    if [[ $name =~ ^($DAEMONS)$ ]] && readlink -q "$folder/exe" >/dev/null; then
      echo "${folder#/proc/} $name"
    fi
  done 2>/dev/null || true
}

our_processes() {  # our daemons, and the processes of jobs, which may outlive them
  local pid
  for pid in $(daemons | cut -d" " -f1) \
    $(grep -lzs "^SLURM_JOB_ID=" /proc/[0-9]*/environ | cut -d/ -f3); do
    if [ "$pid" != $$ ] && is_ours "$pid"; then echo "$pid"; fi
  done
}

refuse_foreign() {
  local conf pid name
  for conf in "$FOREIGN_CONF" /etc/slurm/slurm.conf /etc/slurm-llnl/slurm.conf; do
    if [ -n "$conf" ] && [ "$conf" != "$SLURM_CONF" ] && [ -e "$conf" ]; then
      fail 3 "this machine has a SLURM that is not ours: $conf"
    fi
  done
  while read -r pid name; do
    # the second look is for one that ended since it was listed
    if [[ $name = slurm* ]] && ! is_ours "$pid" && readlink -q "/proc/$pid/exe" >/dev/null; then
      fail 3 "a $name that is not ours runs: process $pid"
    fi
  done < <(daemons)
}

# --- files -----------------------------------------------------------------------------------

install_packages() {
  if which slurmctld slurmd sbatch slurmdbd munged mariadbd >/dev/null; then return; fi
  command -v apt-get >/dev/null || fail 4 "SLURM is not installed and there is no apt-get"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${PACKAGES[@]}"; } \
    >"$LOGS/install.log" 2>&1 ||
    fail 4 "packages cannot be installed: $(tail -n 1 "$LOGS/install.log")"
}

memory_cgroup_works() {  # version 1, and this container may make groups in it
  local group
  for group in memory freezer; do
    mkdir "/sys/fs/cgroup/$group/kscout-probe" 2>/dev/null || return 1
    rmdir "/sys/fs/cgroup/$group/kscout-probe"
  done
}

memory_limits() {
  if memory_cgroup_works; then
    printf '%s\n' ProctrackType=proctrack/cgroup TaskPlugin=task/cgroup \
      JobAcctGatherType=jobacct_gather/cgroup
  else
    printf '%s\n' ProctrackType=proctrack/linuxproc TaskPlugin=task/none \
      JobAcctGatherType=jobacct_gather/linux JobAcctGatherParams=OverMemoryKill
  fi
}

write_configuration() {
  local host memory_mb
  host=$(hostname -s)
  memory_mb=$(awk '/^MemTotal/ {print int($2 / 1024 / 2) - 1024}' /proc/meminfo)
  # cred_expire is also how long a requeued job waits before it may start again
  cat >"$SLURM_CONF" <<CONF
ClusterName=kscout
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$CTLD_PORT
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$MUNGE_SOCKET,cred_expire=5
StateSaveLocation=$HOME_DIR/state
SlurmctldPidFile=$HOME_DIR/slurmctld.pid
SlurmctldLogFile=$LOGS/slurmctld.log
SlurmdSpoolDir=$HOME_DIR/spool-%n
SlurmdPidFile=$HOME_DIR/slurmd-%n.pid
SlurmdLogFile=$LOGS/slurmd-%n.log
SlurmdParameters=config_overrides
MpiDefault=none
SwitchType=switch/none
ReturnToService=0
KillWait=2
MinJobAge=3600
JobRequeue=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=512
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=100000,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=$DBD_PORT
AccountingStoragePass=$MUNGE_SOCKET
AccountingStorageTRES=gres/gpu
JobAcctGatherFrequency=task=1
$(memory_limits)
GresTypes=gpu
NodeName=DEFAULT CPUs=4 RealMemory=$memory_mb Gres=gpu:1
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$N1_PORT
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$N2_PORT
PartitionName=main Nodes=ALL Default=YES PriorityTier=1
PartitionName=urgent Nodes=ALL PriorityTier=10
PartitionName=closed Nodes=ALL State=INACTIVE
CONF
  mknod "$HOME_DIR/gpu0" c 1 3  # /dev/null, as the one fake GPU of each node
  echo "NodeName=n[1-2] Name=gpu File=$HOME_DIR/gpu0" >"$HOME_DIR/gres.conf"
  printf '%s\n' CgroupPlugin=cgroup/v1 CgroupMountpoint=/sys/fs/cgroup ConstrainRAMSpace=yes \
    >"$HOME_DIR/cgroup.conf"
  cat >"$HOME_DIR/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$MUNGE_SOCKET
DbdHost=localhost
DbdPort=$DBD_PORT
SlurmUser=root
LogFile=$LOGS/slurmdbd.log
PidFile=$HOME_DIR/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=accounting
CONF
  chmod 600 "$HOME_DIR/slurmdbd.conf"
}

# --- daemons ---------------------------------------------------------------------------------

wait_for() {  # wait_for SECONDS COMMAND...
  local tries=$(($1 * 10))
  shift
  until "$@" >/dev/null 2>&1; do
    if ((--tries < 0)); then return 1; fi
    sleep 0.1
  done
}

launch() {  # a daemon must not keep the output of this script open: who reads it would wait forever
  "$@" >>"$LOGS/start.log" 2>&1 </dev/null || fail 5 "$1 did not start, see $LOGS"
}

start_munge() {
  install -d -m 755 "$HOME_DIR/munge"
  (umask 077; head -c 128 /dev/urandom >"$HOME_DIR/munge/key")
  launch munged --socket="$MUNGE_SOCKET" --key-file="$HOME_DIR/munge/key" \
    --seed-file="$HOME_DIR/munge/seed" --pid-file="$HOME_DIR/munge/pid" \
    --log-file="$LOGS/munged.log"
}

start_database() {
  local options=(--no-defaults --user=root --datadir="$HOME_DIR/mysql" --innodb-log-file-size=4M)
  launch mariadb-install-db "${options[@]}" --skip-test-db
  # slurmdbd has no option for the socket, but the client library reads this variable
  export MYSQL_UNIX_PORT=$MYSQL_SOCKET
  launch setsid --fork mariadbd "${options[@]}" --socket="$MYSQL_SOCKET" \
    --pid-file="$HOME_DIR/mysql.pid" --skip-networking --innodb-flush-log-at-trx-commit=0
  wait_for 30 mariadb-admin --no-defaults ping || fail 5 "mariadbd did not start, see $LOGS"
}

port_is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1"); }

stands() {  # SLURM's commands wait long for a missing slurm.conf, or a controller that is not there
  [ -e "$SLURM_CONF" ] && port_is_open $CTLD_PORT 2>/dev/null &&
    [ "$(sinfo --noheader --Node --partition=main --format=%T 2>/dev/null |
      grep -cE '^(idle|mixed|allocated)$')" = 2 ]
}

start() {
  rm -rf "$LOGS"
  install -d -m 755 "$HOME_DIR" "$LOGS"
  install_packages
  install -d -m 755 "$HOME_DIR"/{state,spool-n1,spool-n2}
  write_configuration
  start_munge
  start_database
  launch slurmdbd
  wait_for 30 port_is_open $DBD_PORT || fail 5 "slurmdbd did not start, see $LOGS"
  launch slurmctld
  # a node that does not reach the controller tries again only after many seconds
  wait_for 30 port_is_open $CTLD_PORT || fail 5 "slurmctld did not start, see $LOGS"
  launch slurmd -N n1
  launch slurmd -N n2
  wait_for 30 stands || fail 5 "the nodes did not come up, see $LOGS"
}

kill_all() {  # nothing of the state is kept, so nothing needs to end in order
  local pids
  pids=$(our_processes)
  [ -z "$pids" ] || { kill -KILL $pids || true; return 1; }
}

stop() {  # the logs stay
  wait_for 10 kill_all || fail 5 "these processes do not end: $(our_processes | xargs)"
  find /sys/fs/cgroup -depth -type d -path '*/slurm_n[12]*' -exec rmdir {} + 2>/dev/null || true
  if [ -d "$HOME_DIR" ]; then
    find "$HOME_DIR" -mindepth 1 -maxdepth 1 ! -name logs -exec rm -r {} +
  fi
}

# --- commands --------------------------------------------------------------------------------

[ "$(id -u)" = 0 ] || fail 2 "must run as root"
if [ -e "$HOME_DIR" ] && [ ! -O "$HOME_DIR" ]; then fail 3 "$HOME_DIR belongs to someone else"; fi
refuse_foreign
case ${1:-} in
  up)
    if ! stands; then stop; start; fi
    echo "export SLURM_CONF=$SLURM_CONF"
    ;;
  down) stop ;;
  status)
    stands || fail 1 "the cluster does not stand"
    sinfo --Node --long
    ;;
  *) fail 2 "usage: cluster.sh up|down|status" ;;
esac
