"""An array on a real SLURM whose node dies, whose tasks are killed, preempted and run out of time: the results are
those of an undisturbed sweep on one machine, and no run was executed to its end twice."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import one_node
import pytest
from one_node import Cluster, wait_for

from benchmarks import cli
from benchmarks.runner import claims, store

ROOT = Path(__file__).resolve().parents[2]
SELECTION = ["--benchmark", "cmu_mosi", "--data", "twin", "--method", "misa,late_fusion", "--seeds-together", "1"]
SEEDS, RUNS = 6, 12
WORK_S = 220.0  # that all runs take in all: more than is done until the last thing happens to them
PROBE = 5  # epochs
SETTINGS = """\
partition: low
time: 0:10:00
tasks: 3
workers: 1
cpus_per_task: 1
signal_s: 10
poll_s: 0.5
device: cpu
"""

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(one_node.missing()), reason=one_node.missing()),
]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("submitit")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(one_node.running(Path(folder) / "slurm"))
        except (OSError, subprocess.CalledProcessError) as error:  # of the machine, not of the launcher
            pytest.skip(f"no SLURM comes up here: {error}")
        yield found


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLCR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def epochs(number: int) -> list[str]:
    return ["--set", f"training.epochs={number}", "--set", "training.patience=0"]


def start(out: Path, sweep: list[str], *options: str, slurm: Cluster | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, **({"SLURM_CONF": slurm.environment["SLURM_CONF"]} if slurm else {})}
    command = [sys.executable, "-m", "benchmarks.cli", "run", *sweep, "--out", str(out), *options, "--json"]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(process: subprocess.Popen[str], seconds: float = 600) -> dict[str, int]:
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err
    counts: dict[str, int] = json.loads(out)
    return counts


def enough(out: Path) -> int:
    """The epochs that make the sweep as long as it has to be, on this machine as busy as it is."""
    assert finished(start(out, [*SELECTION, "--seeds", "0", *epochs(PROBE)], "--workers", "2"))["done"] == RUNS / SEEDS
    each = sum(record.time_s for _, record in store.records(out)) / PROBE
    return max(30, math.ceil(WORK_S / (SEEDS * each)))


def working(out: Path) -> list[Path]:
    return [folder for folder in store.run_folders(out) if claims.held(folder)]


def elements(cluster: Cluster) -> dict[str, dict[str, str]]:
    """The elements of the array that run, by the nodes' names and their indices."""
    found = [job for job in cluster.jobs() if job["JobState"] == "RUNNING" and "ArrayTaskId" in job]
    return {f"{job['NodeList']}/{job['ArrayTaskId']}": job for job in found}


def process_of(index: str) -> int:
    """The process of an element that runs."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line, environment = (path / "cmdline").read_bytes(), (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        is_task = b"submitit.core._submit" in line and not line.startswith(b"srun")
        if is_task and f"SLURM_ARRAY_TASK_ID={index}".encode() in environment and b"SLURM_STEP_ID=0" in environment:
            return int(path.name)
    raise AssertionError(f"element {index} does not run")


def results(out: Path, options: list[str]) -> dict[str, bytes]:
    """Everything that must not depend on how the sweep went: predictions, curves, tables without costs."""
    assert cli.main(["report", "--only", "tables", "--quiet", *options, "--out", str(out)]) == 0
    paths = [*out.glob("runs/*/*/*/*/predictions.npz"), *out.glob("runs/*/*/*/*/curves.jsonl"), *out.glob("tables/*")]
    return {str(p.relative_to(out)): p.read_bytes() for p in paths if not p.name.startswith("cost.")}


def logs(out: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in sorted(out.glob("launch/*/*_log.*")))


def test_an_array_that_loses_a_node_and_tasks_ends_like_an_undisturbed_sweep(cluster: Cluster, tmp_path: Path) -> None:
    calm, out, settings = tmp_path / "calm", tmp_path / "out", tmp_path / "slurm.yaml"
    settings.write_text(SETTINGS)
    slurm = ["--launcher", "slurm", "--launcher-config", str(settings)]
    number = epochs(enough(tmp_path / "probe"))
    sweep = [*SELECTION, "--seeds", f"0-{SEEDS - 1}", "--checkpoint-epochs", "5", *number]
    assert finished(start(calm, sweep, "--workers", "2"))["done"] == RUNS

    first = start(out, sweep, *slurm, slurm=cluster)
    wait_for(lambda: len(elements(cluster)) == 3 and len(working(out)) == 3, 60, "three elements at work")
    first.send_signal(signal.SIGINT)
    _, told = first.communicate(timeout=60)
    assert first.returncode == cli.INTERRUPTED
    assert "scancel --name=clcr-" in told
    second = start(out, sweep, *slurm, slurm=cluster)

    lost = next(name for name in elements(cluster) if name.startswith("two/"))
    killed, late = (name for name in elements(cluster) if name.startswith("one/"))
    job = elements(cluster)[late]["JobId"]
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=1")  # minutes; SLURM looks every half minute
    cluster.kill_node("two")
    os.kill(process_of(killed.partition("/")[2]), signal.SIGKILL)
    wait_for(lambda: killed not in elements(cluster), 60, "SLURM to see that a task was killed")
    wait_for(lambda: "Requeued job" in logs(out), 120, "the signal before the end of the time")
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=10")
    wait_for(lambda: late in elements(cluster) and working(out), 60, "the element that was requeued")
    cluster.run("sbatch", "--partition=high", "--nodelist=one", "--cpus-per-task=2", "--wrap=:", "--output=/dev/null")
    wait_for(lambda: late not in elements(cluster), 60, "the preemption")

    assert finished(second)["failed"] == 0
    jobs = {job["ArrayTaskId"]: job for job in cluster.jobs() if "ArrayTaskId" in job}
    controller, tasks = cluster.log(), logs(out)
    assert len({job["ArrayJobId"] for job in jobs.values()}) == 1, "the second command submitted again"
    assert jobs[killed.partition("/")[2]]["ExitCode"] != "0:0"
    assert re.search(r"preempted JobId=\S+ has been requeued", controller)
    assert f"requeue job JobId={jobs[lost.partition('/')[2]]['ArrayJobId']}_{lost.partition('/')[2]}" in controller
    assert "due to failure of node two" in controller
    assert "timed-out" in tasks
    assert "Requeued job" in tasks

    executed = Counter(re.findall(r"INFO \(.*\) - done (\S+)", tasks))
    assert len(executed) == RUNS
    assert set(executed.values()) == {1}
    assert any("resumed" in record.provenance for _, record in store.records(out))
    assert results(out, number) == results(calm, number)
    assert not list(out.glob("runs/*/*/*/.seed-*")), "claims or attempts are left"
