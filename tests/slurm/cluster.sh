#!/usr/bin/env bash
# Slurm clusters on this machine, for tests. Needs root; no systemd.
#
#   tests/slurm/cluster.sh install [accounting]  Debian's Slurm and munge, by apt-get, and Btrfs, which has quotas;
#                                                slurmdbd and MariaDB too
#   tests/slurm/cluster.sh start [accounting]    start a cluster, unless it answers already
#   tests/slurm/cluster.sh stop                  cancel all jobs and stop all daemons
#
# Without a word more it is a quiet cluster of one node with two CPUs, whatever the machine has, and two pretended GPUs; it
# keeps no accounts. With `accounting` there are three nodes, limits that are enforced, and partitions that preempt: point
# SLURM_CONF at /var/lib/adamqlr-slurm/accounting/slurm.conf to use it. Both can run side by side.
#
# Files lie in /var/lib/adamqlr-slurm. The quiet cluster overwrites /etc/slurm/slurm.conf and gres.conf: use it in
# containers and on machines that belong to no cluster.
set -euo pipefail

root=/var/lib/adamqlr-slurm
marker="# Written by tests/slurm/cluster.sh"
host=$(hostname -s)
memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)

install() {
    local packages=(slurm-wlm munge btrfs-progs)
    local programs=(slurmctld munged mkfs.btrfs)
    if [[ ${1:-} == accounting ]]; then
        packages+=(slurmdbd mariadb-server)
        programs+=(slurmdbd mariadbd)
    fi
    command -v "${programs[@]}" >/dev/null 2>&1 && [[ $(command -v "${programs[@]}" | wc -l) == "${#programs[@]}" ]] && return
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet --quiet
    apt-get install --yes --quiet --quiet --no-install-recommends "${packages[@]}" >/dev/null
}

refuse_real_clusters() {
    if [[ -e /etc/slurm/slurm.conf ]] && ! grep --quiet --fixed-strings "$marker" /etc/slurm/slurm.conf; then
        echo "cluster.sh: /etc/slurm/slurm.conf is not mine: this machine belongs to a cluster" >&2
        exit 2
    fi
}

# What both clusters have in common; $1 is the folder of its files.
# Requeued jobs wait for their old credentials to expire, two minutes unless cred_expire says otherwise, and for the next
# look at the queue, half a minute later unless these intervals say otherwise.
common_configuration() {
    cat <<EOT
$marker
SlurmctldHost=$host(localhost)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
StateSaveLocation=$1/state
SlurmctldPidFile=$1/slurmctld.pid
SlurmctldLogFile=$1/slurmctld.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=bf_interval=3,sched_interval=3
ReturnToService=2
MinJobAge=10
KillWait=10
GresTypes=gpu
EOT
}

write_quiet_configuration() {
    mkdir --parents /etc/slurm "$root/spool"
    {
        common_configuration "$root"
        cat <<EOT
ClusterName=adamqlr
SlurmdSpoolDir=$root/spool
SlurmdPidFile=$root/slurmd.pid
SlurmdLogFile=$root/slurmd.log
AccountingStorageType=accounting_storage/none
MaxArraySize=5001
NodeName=$host NodeAddr=localhost CPUs=2 RealMemory=$memory Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOT
    } >/etc/slurm/slurm.conf
    echo "Name=gpu File=/dev/fakegpu[0-1]" >/etc/slurm/gres.conf
}

# Three nodes of two kinds of GPU. `urgent` preempts: jobs of `main` are requeued, those of `cancel` are canceled and
# those of `grace` are first given some seconds. Nodes that go are noticed within seconds instead of minutes.
write_accounting_configuration() {
    local folder=$root/accounting
    mkdir --parents "$folder"
    {
        common_configuration "$folder"
        cat <<EOT
ClusterName=adamqlr_accounting
SlurmctldPort=16817
SlurmdSpoolDir=$folder/spool.%n
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmdLogFile=$folder/slurmd.%n.log
SlurmdTimeout=10
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=16819
AccountingStorageEnforce=associations,limits,qos
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
MaxArraySize=6
MessageTimeout=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=node1 NodeHostname=$host NodeAddr=localhost Port=16821 CPUs=2 RealMemory=16000 Gres=gpu:a100:1
NodeName=node2 NodeHostname=$host NodeAddr=localhost Port=16822 CPUs=2 RealMemory=16000 Gres=gpu:h100:1
NodeName=node3 NodeHostname=$host NodeAddr=localhost Port=16823 CPUs=2 RealMemory=16000
PartitionName=main Nodes=ALL Default=YES PriorityTier=1
PartitionName=short Nodes=ALL PriorityTier=1 MaxTime=10
PartitionName=cancel Nodes=ALL PriorityTier=1 PreemptMode=CANCEL
PartitionName=grace Nodes=ALL PriorityTier=1 PreemptMode=CANCEL GraceTime=20
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF
EOT
    } | sed '/jobacct_gather\/none/d' >"$folder/slurm.conf"
    cat >"$folder/gres.conf" <<EOT
NodeName=node1 Name=gpu Type=a100 File=/dev/fakegpu0
NodeName=node2 Name=gpu Type=h100 File=/dev/fakegpu1
EOT
    cat >"$folder/slurmdbd.conf" <<EOT
AuthType=auth/munge
DbdHost=localhost
DbdPort=16819
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
LogFile=$folder/slurmdbd.log
PidFile=$folder/slurmdbd.pid
EOT
    chmod 600 "$folder/slurmdbd.conf"
}

start_munge() {
    mkdir --parents /run/munge /var/log/munge /var/lib/munge /etc/munge
    for number in 0 1; do
        [[ -e /dev/fakegpu$number ]] || mknod --mode=666 "/dev/fakegpu$number" c 1 3
    done
    [[ -s /etc/munge/munge.key ]] || dd if=/dev/urandom of=/etc/munge/munge.key bs=1 count=1024 status=none
    chown --recursive munge:munge /etc/munge /run/munge /var/log/munge /var/lib/munge
    chmod 0400 /etc/munge/munge.key
    chmod 0755 /run/munge
    pgrep -x munged >/dev/null || runuser --user munge -- munged --force
}

start_database() {
    local folder=$root/accounting
    mkdir --parents "$folder"
    if [[ ! -d $folder/mysql ]]; then
        mariadb-install-db --no-defaults --user=root --datadir="$folder/mysql" --skip-test-db >/dev/null
    fi
    mariadbd --no-defaults --user=root --datadir="$folder/mysql" --socket="$folder/mysql.sock" --skip-networking \
        --pid-file="$folder/mysql.pid" --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=0 \
        >"$folder/mysql.log" 2>&1 &
    wait_for 60 "the database" mariadb-admin --no-defaults --socket="$folder/mysql.sock" ping
    MYSQL_UNIX_PORT=$folder/mysql.sock slurmdbd
    wait_for 60 "slurmdbd" sacctmgr --noheader show cluster
}

# A user may submit to account `study`; its limits, and those of the QOS, are for tests to set.
add_accounts() {
    sacctmgr --immediate --quiet add cluster adamqlr_accounting || true
    sacctmgr --immediate --quiet add account study cluster=adamqlr_accounting || true
    sacctmgr --immediate --quiet add user root account=study defaultaccount=study cluster=adamqlr_accounting || true
} >/dev/null 2>&1

wait_for() {
    local tries=$(($1 * 2)) what=$2
    shift 2
    for _ in $(seq "$tries"); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.5
    done
    echo "cluster.sh: $what does not come up; the ends of the logs:" >&2
    tail --lines=20 "$root"/*.log "$root"/accounting/*.log >&2 || true
    exit 1
}

has_nodes() {
    [[ $(sinfo --noheader --Node --partition="$1" --format=%T | grep --count --extended-regexp "idle|mixed|allocated") == "$2" ]]
}

start() {
    refuse_real_clusters
    [[ ${1:-} == accounting ]] && export SLURM_CONF=$root/accounting/slurm.conf
    if [[ -e ${SLURM_CONF:-/etc/slurm/slurm.conf} ]] && squeue >/dev/null 2>&1; then
        return
    fi
    start_munge
    if [[ ${1:-} == accounting ]]; then
        write_accounting_configuration
        rm --recursive --force "$root/accounting/state" "$root"/accounting/spool.*
        mkdir --parents "$root/accounting/state"
        start_database
        add_accounts
        slurmctld
        for node in node1 node2 node3; do
            mkdir --parents "$root/accounting/spool.$node"
            slurmd -N "$node"
        done
        wait_for 30 "Slurm with accounting" has_nodes main 3
    else
        write_quiet_configuration
        rm --recursive --force "$root/state"
        mkdir --parents "$root/state"
        slurmctld
        slurmd
        wait_for 30 "Slurm" has_nodes main 1
    fi
}

# End the daemon that a file names, and wait for its end.
end() {
    local pid
    pid=$(cat "$1" 2>/dev/null) || return 0
    kill "$pid" 2>/dev/null || return 0
    for _ in $(seq 40); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.5
    done
    kill -KILL "$pid" 2>/dev/null || true
}

stop() {
    refuse_real_clusters
    scancel --user=root >/dev/null 2>&1 || true
    if [[ -e $root/accounting/slurm.conf ]]; then
        SLURM_CONF=$root/accounting/slurm.conf scancel --user=root >/dev/null 2>&1 || true
    fi
    for daemon in "$root"/slurmd.pid "$root"/accounting/slurmd.*.pid "$root"/{,accounting/}slurmctld.pid \
        "$root"/accounting/{slurmdbd,mysql}.pid /run/munge/munged.pid; do
        end "$daemon"
    done
}

case "${1:-} ${2:-}" in
"install "* | "start "* | "stop ") "$@" ;;
*)
    sed --quiet '2,15s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
