"""The cluster with accounting (tests/slurm/cluster.sh): its limits, and how its parts go and come back."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.slurm.runs import wait_until

STATE = Path("/var/lib/adamqlr-slurm/accounting")
# Tests count calls of the one on their path.
_SBATCH = shutil.which("sbatch") or "sbatch"
CONFIGURATION = STATE / "slurm.conf"
AWAY_SECONDS = float(os.environ.get("ADAMQLR_CONTROLLER_AWAY", "0"))
"""How long the controller stays away at least."""


def ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def modify(*words: str) -> None:
    """Change an account, a user or a QOS, as `sacctmgr modify` does."""
    subprocess.run(["sacctmgr", "--immediate", "--quiet", "modify", *words], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def user_limit(name: str, value: int | str) -> Iterator[None]:
    """A limit of the user's association."""
    user = ("user", "root", "set")
    modify(*user, f"{name}={value}")
    try:
        yield
    finally:
        modify(*user, f"{name}=-1")


@contextmanager
def qos_limit(setting: str) -> Iterator[None]:
    """A limit of the QOS, for which jobs above it are refused."""
    name = setting.rpartition("=")[0]
    modify("qos", "normal", "set", setting, "flags=DenyOnLimit")
    try:
        yield
    finally:
        modify("qos", "normal", "set", f"{name}=-1", "flags=-1")


def refusal(*options: str) -> str:
    """Return what sbatch says to a job that it refuses."""
    command = ["sbatch", "--output=/dev/null", "--wrap=true", *options]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.returncode != 0, answer.stdout
    return answer.stderr


def _end(pid_file: Path, signum: signal.Signals) -> None:
    process = psutil.Process(int(pid_file.read_text()))
    process.send_signal(signum)
    process.wait(timeout=30)


def stop_controller() -> None:
    """Take the controller away; jobs run on."""
    _end(STATE / "slurmctld.pid", signal.SIGTERM)


def start_controller() -> None:
    """Bring the controller up, and wait until it answers."""
    subprocess.run(["slurmctld"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: subprocess.run(["squeue"], capture_output=True).returncode == 0)


@contextmanager
def controller_away(seconds: float = 0) -> Iterator[None]:
    """The controller is away for some seconds at least; ``ADAMQLR_CONTROLLER_AWAY`` asks for more."""
    stop_controller()
    gone = time.monotonic()
    try:
        yield
        time.sleep(max(0, gone + max(seconds, AWAY_SECONDS) - time.monotonic()))
    finally:
        start_controller()


@contextmanager
def configured(line: str) -> Iterator[None]:
    """A line more in the cluster's configuration."""
    before = CONFIGURATION.read_text()
    try:
        _end(STATE / "slurmctld.pid", signal.SIGTERM)
        CONFIGURATION.write_text(f"{before}{line}\n")
        start_controller()
        yield
    finally:
        _end(STATE / "slurmctld.pid", signal.SIGTERM)
        CONFIGURATION.write_text(before)
        start_controller()


def jobs_on(node: str) -> list[psutil.Process]:
    """Return the processes of a node's jobs, Slurm's own among them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() == "slurmstepd":
                ids = re.findall(r"\[(\d+)\.", " ".join(process.cmdline()))
                if ids and node in ask("squeue", "--noheader", "--states=all", "--format=%N", f"--jobs={ids[0]}"):
                    found += [process, *process.children(recursive=True)]
        except (psutil.Error, subprocess.CalledProcessError):
            continue
    return found


def kill_node(node: str) -> None:
    """End a node as a power cut does."""
    processes = jobs_on(node)
    _end(STATE / f"slurmd.{node}.pid", signal.SIGKILL)
    for process in processes:
        try:
            process.kill()
        except psutil.Error:
            continue


def start_node(node: str, configuration: Path = CONFIGURATION, options: Sequence[str] = ()) -> None:
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    command = ["slurmd", "-N", node, *options]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(
        lambda: ask("sinfo", "--noheader", "--partition=main", f"--nodes={node}", "--format=%T").strip() == "idle"
    )


@contextmanager
def taken_away(node: str, how: str) -> Iterator[None]:
    """A node that is drained, set down, or rebooted, with whatever runs there."""
    if how == "rebooted":
        kill_node(node)
        start_node(node, options=["-b"])
        yield
        return
    update = ["scontrol", "update", f"nodename={node}"]
    ask(*update, f"state={how}", "reason=test")
    try:
        yield
    finally:
        # It may have come back by itself.
        subprocess.run([*update, "state=resume"], capture_output=True)


@contextmanager
def occupied(nodes: str) -> Iterator[None]:
    """Nodes that have no room for others."""
    options = [f"--nodelist={nodes}", "--exclusive", "--output=/dev/null", "--wrap=sleep 600"]
    job = ask(_SBATCH, "--parsable", *options).strip()
    wait_until(lambda: ask("squeue", "--noheader", "--format=%t", f"--jobs={job}").strip() == "R")
    try:
        yield
    finally:
        ask("scancel", job)


@contextmanager
def node_configured(node: str, folder: Path, line: str, cgroup: str = "") -> Iterator[None]:
    """A node with a line more in its own configuration, and a configuration of cgroups."""
    own = folder / "node"
    own.mkdir()
    name = line.partition("=")[0]
    others = [other for other in CONFIGURATION.read_text().splitlines() if not other.startswith(f"{name}=")]
    (own / "slurm.conf").write_text("\n".join([*others, line, ""]))
    (own / "cgroup.conf").write_text(cgroup)
    shutil.copy(STATE / "gres.conf", own)
    _end(STATE / f"slurmd.{node}.pid", signal.SIGTERM)
    start_node(node, own / "slurm.conf")
    try:
        yield
    finally:
        _end(STATE / f"slurmd.{node}.pid", signal.SIGTERM)
        start_node(node)


def preempt(job: str) -> None:
    """Have a job preempted by one of a partition that comes first, and that does nothing."""
    node = ask("squeue", "--noheader", "--format=%N", f"--jobs={job}").strip()
    options = ["--partition=urgent", "--exclusive", f"--nodelist={node}", "--output=/dev/null", "--wrap=true"]
    other = ask(_SBATCH, "--parsable", *options).strip()
    wait_until(lambda: other not in ask("squeue", "--noheader", "--format=%A").split())


def preempt_each(times: int, is_due: Callable[[str, float], bool], process: subprocess.Popen[str]) -> dict[str, int]:
    """Have every job preempted while a head process runs.

    Args:
        times: How often each.
        is_due: Tells of a job's name and the time of its start whether it is to be preempted now.
        process: The head process.

    Returns:
        How often each job was requeued.
    """
    restarts: dict[str, int] = {}
    fields = ",".join(f"{name}:|" for name in ("JobArrayID", "Name", "RestartCnt", "TimeUsed"))
    while process.poll() is None:
        rows = ask("squeue", "--noheader", "--array", "--states=running", f"--Format={fields}").splitlines()
        running = [row.strip().split("|") for row in rows]
        restarts |= {job: int(count) for job, _, count, *_ in running}
        # The one that was preempted the least comes first: it may end the soonest.
        for job, name, _, used, _ in sorted(running, key=lambda row: int(row[2])):
            minutes, seconds = used.split(":")
            if restarts[job] < times and is_due(name, time.time() - 60 * int(minutes) - int(seconds)):
                preempt(job)
                break
    return restarts
