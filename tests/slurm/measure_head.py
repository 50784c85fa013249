"""Measure what thousands of jobs cost the head process.

    python -m tests.slurm.measure_head --jobs 3000

Slurm's commands are stand-ins here, so that the head is all that is measured: they take 400 jobs at a time, in arrays
of at most 300, and jobs end at a steady pace without running.
"""

import argparse
import contextlib
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psutil
from snakemake_executor_plugin_submitit.results import write_result

from tests.slurm.runs import head, messages

OUT_AT_MOST, ARRAY_AT_MOST = 400, 300
SNAKEFILE = """
rule all:
    input: expand("out/{{i}}.txt", i=range({jobs}))

rule one:
    output: "out/{{i}}.txt"
    resources: mem_mb=100, runtime=5
    shell: "touch {{output}}"
"""
# The queue is the folder `queue`: an empty file for each job that is out there.
COMMANDS = {
    "squeue": "ls queue | sed 's/$/|RUNNING|None|0|node1|/'",
    "sbatch": f"""
script=${{!#}}; last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' $script); size=$((${{last:-0}} + 1))
refuse() {{ echo "sbatch: error: $1" >&2; exit 1; }}
if [ $size -gt {ARRAY_AT_MOST} ]; then refuse "Invalid job array specification"; fi
if [ $(($(ls queue | wc -l) + size)) -gt {OUT_AT_MOST} ]; then refuse AssocMaxSubmitJobLimit; fi
id=$(($(cat id) + 1)); echo $id > id
if [ $size = 1 ]; then touch queue/$id; else for k in $(seq 0 $last); do touch queue/${{id}}_$k; done; fi
echo "Submitted batch job $id"
""",
    "scancel": "true",
    "scontrol": "true",
    "srun": "true",
}


def make_cluster(folder: Path) -> None:
    """Put the stand-ins first on the path."""
    (folder / "bin").mkdir()
    (folder / "queue").mkdir()
    (folder / "id").write_text("0")
    for name, text in COMMANDS.items():
        path = folder / "bin" / name
        path.write_text(f"#!/bin/bash\ncd {folder}\n{text}\n")
        path.chmod(0o755)
    os.environ["PATH"] = f"{folder}/bin:{os.environ['PATH']}"


def end_one(folder: Path) -> bool:
    """End one job as if it had run; return whether there was one."""
    for job in sorted((folder / "queue").iterdir()):
        for pickle in folder.glob(f"results/many/logs/slurm/*/{job.name}_submitted.pkl"):
            found = re.search(rb"one:i=(\d+)", pickle.read_bytes())
            assert found
            (folder / "out" / f"{found.group(1).decode()}.txt").touch()
            write_result(pickle.with_name(f"{job.name}_0_result.pkl"), "success", 0)
            job.unlink()
            return True
    return False


def measure(folder: Path, jobs: int, rate: float) -> str:
    """Run the head process to its end, and return what it took."""
    make_cluster(folder)
    (folder / "Snakefile").write_text(SNAKEFILE.format(jobs=jobs))
    (folder / "many.yaml").write_text("name: many\n")
    (folder / "out").mkdir()
    started = time.monotonic()
    process = head(folder, "--configfile", "many.yaml", "--submitit-poll-seconds", "10")
    watched = psutil.Process(process.pid)
    first = seconds = memory = 0.0
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            # Its own, without the commands that it calls.
            seconds = sum(watched.cpu_times()[:2])
            memory = max(memory, watched.memory_info().rss / 2**20)
        if end_one(folder) and not first:
            first = time.monotonic() - started
        time.sleep(1 / rate)
    if process.returncode:
        sys.exit(messages(folder))
    wall, calls = time.monotonic() - started, (folder / "id").read_text().strip()
    return (
        f"{jobs} jobs, {rate:g} ending a second at most: {seconds:.0f} s of a core in {wall:.0f} s "
        f"({100 * seconds / wall:.1f} %), {1000 * seconds / jobs:.1f} ms a job, {memory:.0f} MB, {calls} arrays; the "
        f"first jobs were submitted after {first:.0f} s"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what thousands of jobs cost the head process.")
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--rate", type=float, default=10, help="jobs that end a second")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp())
    print(measure(place, arguments.jobs, arguments.rate))
    shutil.rmtree(place)
