"""Two simulated nodes of a Ray cluster that is started here: a worker, a node and the launcher are killed in the middle
of sweeps, whose results are those of an undisturbed local one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from benchmarks import cli
from benchmarks.runner import claims, store

cluster_utils = pytest.importorskip("ray.cluster_utils")

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
EPOCHS = ["--set", "training.epochs=20"]
METHODS = ["--benchmark", "crema_d", "--data", "twin", "--method", "late_fusion,ogm_ge", "--seeds", "0-2"]
SWEEP = [*METHODS, "--seeds-together", "2", *EPOCHS]  # teams of seeds 0 and 1, and seed 2 alone
RUNS = 6
CHECKPOINT = "checkpoint.pt"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("sweeps")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLCR_CACHE", str(made / "cache"))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # beside other work, nodes would wait for each other for long
        yield made


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Any]:
    """A head that executes nothing, and two nodes with room for one task each."""
    little = {"object_store_memory": 80 * 2**20}
    try:
        found = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **little})
    except Exception as error:  # of the machine, not of the launcher
        pytest.skip(f"no Ray comes up here: {error}")
    try:
        for _ in range(2):
            found.add_node(num_cpus=1, **little)
        yield found
    finally:
        found.shutdown()


@pytest.fixture(scope="module")
def calm(folder: Path) -> dict[str, bytes]:
    """What an undisturbed sweep by the local launcher leaves."""
    process = start(folder / "calm", "--workers", "2")
    assert finished(process)["done"] == RUNS
    return results(folder / "calm")


def start(out: Path, *options: str, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.cli", "run", *SWEEP, "--out", str(out), "--json", *options]
    environment = {**os.environ, **variables}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def on(cluster: Any, out: Path) -> subprocess.Popen[str]:
    return start(out, "--launcher", "ray", "--checkpoint-epochs", "1", RAY_ADDRESS=cluster.address)


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert out.startswith("{"), out
    counts: dict[str, Any] = json.loads(out)
    return {**counts, "told": err}


def working(out: Path) -> list[claims.Claim]:
    """Processes that have got as far as a checkpoint."""
    owners = [(folder, claims.owner(folder)) for folder in store.run_folders(out) if claims.held(folder)]
    return [owner for folder, owner in owners if owner and (claims.attempt(folder, owner) / CHECKPOINT).exists()]


def until(holds: Callable[[], T], what: str) -> T:
    deadline = time.monotonic() + 120
    while not (found := holds()):
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
    return found


def results(out: Path) -> dict[str, bytes]:
    """Everything that must not depend on how the sweep went: predictions, curves, tables without costs."""
    assert cli.main(["report", "--only", "tables", "--quiet", *EPOCHS, "--out", str(out)]) == 0
    paths = [*out.glob("runs/*/*/*/*/predictions.npz"), *out.glob("runs/*/*/*/*/curves.jsonl"), *out.glob("tables/*")]
    return {str(p.relative_to(out)): p.read_bytes() for p in paths if not p.name.startswith("cost.")}


def check(out: Path, calm: dict[str, bytes]) -> None:
    """Nothing is lost, doubled or left; what was done is gone on from, and shows in no number."""
    done = [record.key for _, record in store.records(out) if record.status == "done"]
    assert len(done) == len(set(done)) == RUNS
    assert len(calm) > 2 * RUNS
    assert results(out) == calm
    assert not [path for path in out.rglob(".*") if path.name != claims.LOCK]
    assert any("resumed" in record.provenance for _, record in store.records(out))


def test_a_worker_that_is_killed_costs_nothing_but_time(folder: Path, cluster: Any, calm: dict[str, bytes]) -> None:
    out = folder / "worker"
    process = on(cluster, out)
    os.kill(until(lambda: working(out), "a checkpoint is written")[0].pid, signal.SIGKILL)
    ended = finished(process)
    assert (ended["done"], ended["failed"]) == (RUNS, 0)
    assert len({str(run["key"]) for run in ended["runs"]}) == len(ended["runs"]) == RUNS
    assert "the worker died: WorkerCrashedError" in ended["told"]
    check(out, calm)


def test_ctrl_c_leaves_no_claim_and_the_same_command_goes_on(
    folder: Path, cluster: Any, calm: dict[str, bytes]
) -> None:
    out = folder / "interrupted"
    process = on(cluster, out)
    until(lambda: working(out), "a checkpoint is written")
    process.send_signal(signal.SIGINT)
    out_said, err = process.communicate(timeout=100)
    assert (process.returncode, out_said) == (cli.INTERRUPTED, "")
    assert "the same command goes on" in err
    assert not list(out.rglob("*.claim"))
    ended = finished(on(cluster, out))
    assert ended["failed"] == 0
    check(out, calm)


def test_a_node_that_is_lost_costs_nothing_but_time(folder: Path, cluster: Any, calm: dict[str, bytes]) -> None:
    out = folder / "node"
    process = on(cluster, out)
    worker = until(lambda: working(out), "a checkpoint is written")[0]
    raylet = int(Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[1])
    node = next(n for n in cluster.worker_nodes if n.all_processes["raylet"][0].process.pid == raylet)
    cluster.remove_node(node, allow_graceful=False)
    ended = finished(process)
    assert (ended["done"], ended["failed"]) == (RUNS, 0)
    assert "the node of the worker was lost" in ended["told"]
    check(out, calm)
