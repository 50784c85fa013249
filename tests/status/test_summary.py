"""What jobs add up to, and how it is shown."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from adamqlr.logs import device_line
from adamqlr.status.expected import Job
from adamqlr.status.report import as_json, as_text
from adamqlr.status.states import Folder, Seen, State
from adamqlr.status.summary import Status, hours_of, rows_of
from adamqlr.study.config import StudyConfig

EFFICIENCY = """rule\tjob\tnode\tending\tminutes_asked\tminutes_used\tmb_asked\tmb_used\tcpus\tgpus
train\t1\tn1\tsucceeded\t240\t60.00\t8000\t900\t1\t1
train\t2\tn1\tfailed\t240\t30.00\t8000\t900\t1\t1
train\t3\tn1\tout_of_time\t240\t60.00\t8000\t900\t1\tgpu:a100:2
figure\t4\tn1\tfailed\t30\t6.00\t8000\t900\t1\t0
train\t5\tn1\tinterrupted\t240\t\t8000\t\t1\t1
"""


def train(number: int, state: State, dataset: str = "digits", **known: Any) -> Seen:
    return Seen(Job("train", str(number), (f"{number}.nc",), dataset), state, **known)


def status_of(jobs: list[Seen], study: StudyConfig, path: Path) -> Status:
    folder = Folder(path)
    rows = rows_of(jobs, study, folder)
    return Status("small", path, 1.8e9, None, jobs, rows, hours_of(rows, folder))


def text_of(status: Status) -> str:
    written = io.StringIO()
    Console(file=written, width=120).print(as_text(status), soft_wrap=True)
    return written.getvalue()


def test_the_time_left_is_the_medians_of_what_is_left_at_the_present_pace(study: StudyConfig, tmp_path: Path) -> None:
    finished = [train(n, State.DONE, seconds=s) for n, s in enumerate((100.0, 10.0, 20.0))]
    running = [train(3, State.RUNNING, fraction=0.5), train(4, State.RUNNING)]
    status = status_of([*finished, *running, train(5, State.FAILED), train(6, State.WAITING)], study, tmp_path)
    # 20 s each for what failed and what waits, and for one and a half of the running ones, two at a time.
    assert (status.seconds_left, status.is_lower_bound) == (35.0, False)
    assert status.rows[0].seconds_left(status.jobs_at_a_time) == 35.0
    assert "Expected time left: 35 s, estimated from finished jobs, 2 at a time, as now" in text_of(status)


def test_a_last_job_is_not_divided(study: StudyConfig, tmp_path: Path) -> None:
    jobs = [train(0, State.DONE, seconds=40.0), train(1, State.WAITING)]
    jobs += [train(n, State.RUNNING, "diabetes") for n in range(2, 10)]
    status = status_of(jobs, study, tmp_path)
    assert status.rows[0].seconds_left(status.jobs_at_a_time) == 40.0
    assert status.seconds_left == 40.0


def test_no_time_is_made_up_for_stages_of_which_nothing_has_finished(study: StudyConfig, tmp_path: Path) -> None:
    jobs = [train(0, State.WAITING)]
    status = status_of(jobs, study, tmp_path)
    assert (status.seconds_left, status.is_lower_bound) == (None, True)
    assert "Expected time left: not known" in text_of(status)
    # What one dataset took says nothing of another.
    jobs += [train(1, State.DONE, "diabetes", seconds=10.0), train(2, State.WAITING, "diabetes")]
    status = status_of(jobs, study, tmp_path)
    assert [row.work_seconds for row in status.rows] == [None, 10.0]
    assert "Expected time left: at least 10 s, estimated from finished jobs, one at a time" in text_of(status)


@pytest.mark.parametrize(
    ("device", "log", "kind"),
    [
        ("cpu", "", "cpu"),
        ("cuda", "", "gpu"),
        ("auto", device_line("digits/adam", "cuda", "NVIDIA H100"), "gpu"),
        ("auto", device_line("digits/adam", "cpu", "AMD EPYC, 1 thread"), "cpu"),
        ("auto", "", "unknown"),
    ],
)
def test_hours_are_of_the_device_that_was_used(
    device: str, log: str, kind: str, study: StudyConfig, tmp_path: Path
) -> None:
    jobs = [train(0, State.WAITING), train(1, State.DONE, seconds=1800.0), train(2, State.DONE, seconds=1800.0)]
    path = tmp_path / jobs[1].job.log
    path.parent.mkdir(parents=True)
    path.write_text(f"12:00:00 {log}\n" + "12:00:10 train digits/adam:  45 %, seed 1, step 7\n" * 200)
    status = status_of(jobs, study.model_copy(update={"device": device}), tmp_path)
    assert status.hours == {"gpu": 0.0, "cpu": 0.0, "unknown": 0.0} | {kind: 1.0}


def test_attempts_that_failed_on_a_cluster_were_spent_too(study: StudyConfig, tmp_path: Path) -> None:
    (tmp_path / "logs" / "slurm").mkdir(parents=True)
    (tmp_path / "logs" / "slurm" / "efficiency.tsv").write_text(EFFICIENCY)
    jobs = [train(0, State.DONE, seconds=3600.0)]
    status = status_of(jobs, study.model_copy(update={"device": "cuda"}), tmp_path)
    assert status.hours == pytest.approx({"gpu": 1 + 0.5 + 2, "cpu": 0.1, "unknown": 0})
    assert "Spent: 3.5 h of GPU, 6.0 min of CPU" in text_of(status)


def test_what_has_failed_is_named_with_its_error_and_its_log(study: StudyConfig, tmp_path: Path) -> None:
    job = train(0, State.FAILED).job
    failed = [Seen(job, State.FAILED, why="ValueError: broken")] + [train(n, State.FAILED) for n in range(1, 12)]
    text = text_of(status_of(failed, study, tmp_path))
    assert f"failed: train 0: ValueError: broken; see {tmp_path / job.log}\n" in text
    assert "failed: … and 4 more" in text


def test_json_says_the_same(study: StudyConfig, tmp_path: Path) -> None:
    jobs = [train(0, State.DONE, seconds=40.0), train(1, State.RUNNING, fraction=0.25, silent_seconds=3.0)]
    jobs += [
        Seen(train(2, State.WAITING).job, State.WAITING, is_queued=True),
        Seen(Job("study", "", ("s",)), State.FAILED),
    ]
    data = json.loads(json.dumps(as_json(status_of(jobs, study, tmp_path))))
    assert data["jobs"] == {"done": 1, "running": 1, "waiting": 1, "failed": 1, "unknown": 0}
    assert (data["queued"], data["jobs_at_a_time"], data["seconds_left"]) == (1, 1, 70.0)
    assert data["seconds_left_is_lower_bound"] is True
    assert data["stages"][0] == {
        "rule": "train",
        "dataset": "digits",
        "jobs": {"done": 1, "running": 1, "waiting": 1, "failed": 0, "unknown": 0},
        "median_seconds": 40.0,
        "seconds_left": 70.0,
        "hours": pytest.approx(40 / 3600),
        "hours_of": "cpu",
    }
    assert [(job["rule"], job["state"], job["fraction"]) for job in data["named"]] == [
        ("train", "running", 0.25),
        ("study", "failed", None),
    ]


def test_every_key_of_the_json_is_documented(study: StudyConfig, tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "results" / "README.md").read_text()
    documented = text.partition("## How far a study is")[2].partition("\n## ")[0]
    data = as_json(status_of([train(0, State.FAILED)], study, tmp_path))
    for key in {*data, *data["stages"][0], *data["named"][0], *data["hours"]}:
        assert f"`{key}`" in documented, key
