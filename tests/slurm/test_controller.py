"""A real Slurm whose controller is away, or whose answers are lost or late: nothing is lost, nothing runs twice."""

import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.slurm.accounting import AWAY_SECONDS, ask, controller_away
from tests.slurm.runs import Training, messages, processes_in, queue, sbatch_calls, stand_in, trivial, wait_until

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.accounting,
    pytest.mark.timeout(900 + AWAY_SECONDS),
]


def test_jobs_are_submitted_once_the_controller_is_back(folder: Path) -> None:
    with controller_away():
        process = trivial(folder, jobs=2)
        wait_until(lambda: "takes no more jobs for now (Unable to contact slurm controller" in messages(folder))
    assert process.wait(timeout=180) == 0, messages(folder)
    assert len(list(folder.glob("out/*.txt"))) == 2


def test_jobs_that_end_while_the_controller_is_away(folder: Path) -> None:
    process = trivial(folder, seconds=5, jobs=2)
    wait_until(lambda: len(list(folder.glob("started_*"))) == 2)
    with controller_away():
        wait_until(lambda: "the queue cannot be read" in messages(folder))
        wait_until(lambda: len(list(folder.glob("out/*.txt"))) == 2)
    assert process.wait(timeout=120) == 0, messages(folder)
    assert sbatch_calls(folder) == 1
    assert "Error in rule" not in messages(folder)
    # Nodes tell a controller only by and by of jobs that have ended while it was away.
    wait_until(lambda: queue() == "", 180)


def test_a_job_that_cannot_be_requeued_is_submitted_again(folder: Path) -> None:
    """The controller is away when the job asks for it: no failure, the same resources, equal numbers."""
    training, expected = Training(folder, epochs=4000), folder / "undisturbed.nc"
    process = training.start("--retries", "0")
    training.wait_for_checkpoint(process)
    runner = next(member for member in processes_in(folder) if "submitit.core._submit" in member.cmdline())
    with controller_away():
        runner.send_signal(signal.SIGUSR2)
        wait_until(lambda: not runner.is_running() or runner.status() == psutil.STATUS_ZOMBIE)
    assert process.wait(timeout=180) == 0, messages(folder)
    assert "Error in rule" not in messages(folder)
    # Again where a controller that has just been started does not let it begin.
    assert sbatch_calls(folder) == 1 + messages(folder).count("through no fault of its own. It is submitted again")
    assert sbatch_calls(folder) in (2, 3)
    assert training.start_undisturbed(expected).wait() == 0
    training.assert_numbers_of(expected)


def test_a_job_that_could_not_begin_is_submitted_again(folder: Path) -> None:
    """As one that asks for a GPU in the seconds after the controller was started."""
    refusal = "Unable to create step for job $SLURM_JOB_ID: Invalid generic resource (gres) specification"
    stand_in(
        folder,
        "srun",
        f'if mkdir $folder/refused 2>/dev/null; then echo "srun: error: {refusal}" >&2; exit 1; fi\nexec $real "$@"',
    )
    process = trivial(folder, "--retries", "0", jobs=1)
    assert process.wait(timeout=120) == 0, messages(folder)
    assert (folder / "refused").exists()
    assert "through no fault of its own" in messages(folder)
    assert sbatch_calls(folder) == 2


def test_a_queue_that_cannot_be_read_for_a_minute(folder: Path) -> None:
    """No job is taken for lost, and none is submitted twice."""
    stand_in(folder, "squeue", '[ -n "$(find $folder/started_0 -mmin +1 2>/dev/null)" ] && exec $real "$@"; exit 1')
    process = trivial(folder, "--retries", "0", seconds=75, jobs=2)
    assert process.wait(timeout=150) == 0, messages(folder)
    assert "the queue cannot be read; jobs go on" in messages(folder)
    assert "Error in rule" not in messages(folder)
    assert sbatch_calls(folder) == 1


def test_ctrl_c_ends_everything_once_the_controller_is_back(folder: Path) -> None:
    process = trivial(folder, seconds=300, jobs=3)
    wait_until(lambda: len(list(folder.glob("started_*"))) == 3)
    array = ask("squeue", "--noheader", "--format=%F").split()[0]
    with controller_away():
        process.send_signal(signal.SIGINT)
        wait_until(lambda: f"3 jobs could not be canceled yet ({array})" in messages(folder))
    wait_until(lambda: queue() == "", 60)
    assert process.wait(timeout=60) != 0
    assert "everything is canceled" in messages(folder)
    assert not (folder / ".snakemake/submitit/ledger.jsonl").exists()


def test_jobs_that_a_second_ctrl_c_leaves_go_on_with_the_next_run(folder: Path) -> None:
    """Those that have not begun too: what they wait for on their node is still there."""
    jobs = [
        *("--jobs", "20", "--retries", "0"),
        *("--default-resources", "mem_mb=100", "runtime=5", "slurm_extra='--begin=now+40'"),
    ]
    process = trivial(folder, *jobs, jobs=2)
    wait_until(lambda: queue() != "")
    with controller_away():
        process.send_signal(signal.SIGINT)
        wait_until(lambda: "could not be canceled yet" in messages(folder))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) != 0
    assert trivial(folder, "--unlock", jobs=2).wait(timeout=60) == 0
    process = trivial(folder, *jobs, jobs=2)
    assert process.wait(timeout=180) == 0, messages(folder)
    assert "of an earlier run" in messages(folder)
    assert "Error in rule" not in messages(folder)
    assert sbatch_calls(folder) == 1


def test_a_submission_whose_answer_is_lost_runs_once(folder: Path) -> None:
    stand_in(
        folder,
        "sbatch",
        'if [ ! -e $folder/lost ]; then touch $folder/lost; $real "$@" >/dev/null; '
        'echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1; fi\n'
        'exec $real "$@"',
    )
    process = trivial(folder, seconds=3, jobs=2)
    assert process.wait(timeout=120) == 0, messages(folder)
    jobs = subprocess.run(
        [
            "sacct",
            "--noheader",
            "--parsable2",
            "--allocations",
            "--format=State",
            "--starttime=now-2minutes",
            "--name=one",
        ],
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    assert sum(state.startswith("CANCELLED") for state in jobs) >= 1
    assert "takes no more jobs for now (Socket timed out)" in messages(folder)


@pytest.mark.parametrize("squeue_forgets", [False, True])
def test_results_that_appear_late(squeue_forgets: bool, folder: Path) -> None:
    """Half a minute after the job has left the queue, and with a latency-wait of only five seconds."""
    stand_in(
        folder,
        "sbatch",
        "script=${!#}; logs=$(dirname $script); late=$folder/late; mkdir -p $late\n"
        'sed -i "s#_submit .*#_submit $late#" $script\n'
        "sed -i '/^srun/i name=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}' $script\n"
        'sed -i "/^srun/i until cp $logs/\\${name}_submitted.pkl $late; do sleep 0.1; done" $script\n'
        "cat >> $script <<'END'\n"
        "cd /\n"
        'setsid --fork bash -c "sleep 30; mv LATE/${name}_0_result.pkl LOGS" </dev/null >/dev/null 2>&1\n'
        "END\n"
        'sed -i "s#LATE#$late#; s#LOGS#$logs#" $script\n'
        'exec $real "$@"',
    )
    if squeue_forgets:
        stand_in(folder, "squeue", '$real "$@" | grep -v COMPLETED; exit 0')
    process = trivial(folder, jobs=2)
    assert process.wait(timeout=180) == 0, messages(folder)
    assert "Error in rule" not in messages(folder)
    assert "the file system shows files late" in messages(folder)
    assert len(list(folder.glob("started_*"))) == 2
    assert (folder / "bin" / "sacct.calls").exists() == squeue_forgets
    wait_until(lambda: queue() == "", 30)
