#!/usr/bin/env bash
# A Slurm cluster of one node and two pretended GPUs on this machine, for tests. Needs root; no systemd.
#
#   tests/slurm/cluster.sh install    Debian's Slurm and munge, by apt-get
#   tests/slurm/cluster.sh start      start it, unless it answers already
#   tests/slurm/cluster.sh stop       cancel all jobs and stop its daemons
#
# Its files lie in /var/lib/adamqlr-slurm. It overwrites /etc/slurm/slurm.conf and gres.conf: use it in containers and
# on machines that belong to no cluster.
set -euo pipefail

state=/var/lib/adamqlr-slurm
marker="# Written by tests/slurm/cluster.sh"

install() {
    command -v slurmctld >/dev/null && command -v munged >/dev/null && return
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet --quiet
    apt-get install --yes --quiet --quiet --no-install-recommends slurm-wlm munge >/dev/null
}

refuse_real_clusters() {
    if [[ -e /etc/slurm/slurm.conf ]] && ! grep --quiet --fixed-strings "$marker" /etc/slurm/slurm.conf; then
        echo "cluster.sh: /etc/slurm/slurm.conf is not mine: this machine belongs to a cluster" >&2
        exit 2
    fi
}

write_configuration() {
    mkdir --parents /etc/slurm "$state/spool"
    # Requeued jobs wait for their old credentials to expire, two minutes unless cred_expire says otherwise.
    cat >/etc/slurm/slurm.conf <<EOF
$marker
ClusterName=adamqlr
SlurmctldHost=$(hostname -s)(localhost)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
StateSaveLocation=$state/state
SlurmdSpoolDir=$state/spool
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MaxArraySize=5001
MinJobAge=10
KillWait=10
GresTypes=gpu
NodeName=$(hostname -s) NodeAddr=localhost CPUs=$(nproc) RealMemory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo) Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
    echo "Name=gpu File=/dev/fakegpu[0-1]" >/etc/slurm/gres.conf
}

start() {
    refuse_real_clusters
    if squeue >/dev/null 2>&1; then
        return
    fi
    write_configuration
    rm --recursive --force "$state/state"
    mkdir --parents "$state/state" /run/munge /var/log/munge /var/lib/munge /etc/munge
    for number in 0 1; do
        [[ -e /dev/fakegpu$number ]] || mknod --mode=666 "/dev/fakegpu$number" c 1 3
    done
    [[ -s /etc/munge/munge.key ]] || dd if=/dev/urandom of=/etc/munge/munge.key bs=1 count=1024 status=none
    chown --recursive munge:munge /etc/munge /run/munge /var/log/munge /var/lib/munge
    chmod 0400 /etc/munge/munge.key
    chmod 0755 /run/munge
    pgrep -x munged >/dev/null || runuser --user munge -- munged --force
    slurmctld
    slurmd
    for _ in $(seq 60); do
        if sinfo --noheader --format=%T 2>/dev/null | grep --quiet --extended-regexp "idle|mixed|allocated"; then
            return
        fi
        sleep 0.5
    done
    echo "cluster.sh: Slurm does not come up; the ends of its logs:" >&2
    tail --lines=20 "$state/slurmctld.log" "$state/slurmd.log" >&2
    exit 1
}

stop() {
    refuse_real_clusters
    scancel --user=root >/dev/null 2>&1 || true
    for daemon in slurmd slurmctld munged; do
        pkill -x "$daemon" || continue
        for _ in $(seq 20); do
            pgrep -x "$daemon" >/dev/null || continue 2
            sleep 0.5
        done
        pkill --signal KILL -x "$daemon" || true
    done
}

case "${1:-}" in
install | start | stop) "$1" ;;
*)
    sed --quiet '2,9s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
