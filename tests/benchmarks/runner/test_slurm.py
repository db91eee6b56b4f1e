from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fake_engine
import pytest

from benchmarks import cli
from benchmarks.errors import InputError
from benchmarks.record import RunKey
from benchmarks.runner import launch, slurm, slurm_settings
from benchmarks.runner.launch import Crew, Event, Result
from benchmarks.runner.plan import Place, Team
from benchmarks.runner.slurm_settings import Settings

KEY = RunKey("cmu_mosi", "aligned", "twin", "tiny", "quick", "full", 0)
HERE = str(Path(__file__).parent)
CONFIG = "tasks: 2\npoll_s: 0.1\nworkers: 1\ndevice: cpu\n"
PROGRAMS = {
    "squeue": 'case "$*" in *%T*) cat state;; *) cat queue;; esac',
    "sbatch": 'sed -n \'s/^#SBATCH --job-name=//p\' "$1" >> queue; cp "$1" script; echo Submitted batch job 7',
    "scontrol": "",
    "scancel": "",
    "srun": "",
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "out", tmp_path / "cache")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that behave like SLURM's: the queue is a file, what was called is another one."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, body in PROGRAMS.items():
        (folder / name).write_text(f'#!/bin/sh\ncd {folder}\necho "{name} $*" >> calls\n{body}\n')
        (folder / name).chmod(0o755)
    for name in ("queue", "calls", "state"):
        (folder / name).touch()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([HERE, *filter(None, [os.environ.get("PYTHONPATH")])]))
    (tmp_path / "slurm.yaml").write_text(CONFIG)
    (tmp_path / "out").mkdir()
    return folder


@pytest.fixture
def crew(tmp_path: Path) -> Crew:
    return Crew(engine="fake_engine", settings=tmp_path / "slurm.yaml")


def teams(*methods: str, seeds: int = 1) -> list[Team]:
    return [(replace(KEY, method=method, seed=seed),) for method in methods for seed in range(seeds)]


def submitted(cluster: Path, place: Place, runs: list[Team], number: int = 1, **said: float) -> Path:
    """What an array leaves that was submitted before and waits in the queue."""
    folder = place.out / "launch" / f"clcr-{number}"
    (place.out / "launch").mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700)
    told = {"retry_before": 0.0, "asked_at": 0.0, "grace_s": 9.0, **said}
    slurm._Job(tuple(runs), place, "fake_engine", "cpu", 1, 2, **told).write(folder)
    with (cluster / "queue").open("a") as queue:
        queue.write(f"{folder.name}\n")
    return folder


def calls(cluster: Path, program: str) -> list[str]:
    return [line for line in (cluster / "calls").read_text().splitlines() if line.startswith(f"{program} ")]


def elsewhere(place: Place, runs: list[Team], cluster: Path) -> Callable[[Event], None]:
    """A listener that, at the first tick, does what the elements of the array do, and empties the queue."""
    waiting = [runs]

    def listen(event: Event) -> None:
        if event.kind == "tick" and waiting:
            launch.local(waiting.pop(), place, Crew(engine="fake_engine"), lambda event: None)
            (cluster / "queue").write_text("")

    return listen


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("partitoin: low", "unknown field 'partitoin'; did you mean 'partition'?"),
        ("tasks: many", "tasks = 'many': expected int"),
        ("tasks: 0", "tasks = 0: must be at least 1"),
        ("cpus_per_task: 0", "must be at least 1"),
        ("workers: -1", "must be at least 0"),
        ("time: 1:30", "write minutes, H:MM:SS or D-HH:MM:SS"),
        ("time: 0", "must be at least one minute"),
        ("time: 1\nsignal_s: 60", "signal_s = 60: must be less than time, 60 s"),
        ("poll_s: 0", "must be from 0.1 to 3600 seconds"),
        ("poll_s: .nan", "must be from 0.1 to 3600 seconds"),
        ("device: gpu", "write auto, cpu or cuda"),
        ("wait: 3", "expected bool"),
        ("partition: |\n  low\n  #SBATCH --uid=0", "must be one line of printable text"),
        ("setup: module load cuda", "setup = 'module load cuda': expected"),
        ('setup: ["a\\nb"]', "must be one line"),
        ("sbatch: fast", "expected a mapping"),
        ("sbatch: {--mem: 3}", "'--mem' is no option; write its long name without dashes"),
        ("sbatch: {mem: 3}", "'mem' cannot be set here; use the field 'memory'"),
        ("sbatch: {wrap: ls}", "'wrap' cannot be set here; the launcher sets it"),
        ("sbatch: {nice: [1]}", "expected a text, a number or true"),
        ('sbatch: {comment: "a\\nb"}', "must be one line"),
        ("- partition", "expected a mapping of names"),
        ("partition: [", "cannot be read"),
        ("!!python/object/apply:os.system [ls]", "cannot be read"),
    ],
)
def test_wrong_settings_are_refused_with_file_and_field(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "array.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        slurm_settings.read(path)
    assert told in str(error.value)
    assert "array.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--launcher-config .*none.yaml: no such file"):
        slurm_settings.read(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("1:30:00", 90), ("'1:30:00'", 90), ("0:00:30", 1), ("2-01:00:00", 2940), ("'07'", 7)],
)
def test_times_are_minutes_or_what_a_clock_shows(tmp_path: Path, text: str, minutes: int) -> None:
    path = tmp_path / "array.yaml"
    path.write_text(f"time: {text}\nsignal_s: 5")
    assert slurm_settings.read(path) == Settings(time=minutes, signal_s=5)


def test_settings_have_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert slurm_settings.read(None) == slurm_settings.read(tmp_path / "empty.yaml") == Settings()


def test_elements_begin_at_different_teams_and_come_to_all() -> None:
    runs = teams(*"abcdefg")
    orders = [slurm.dealt(runs, index, 3) for index in range(3)]
    assert all(sorted(order) == sorted(runs) for order in orders)
    first = [[team[0].method for team in order[:3]] for order in orders]
    assert [order[:2] for order in first] == [["a", "d"], ["b", "e"], ["c", "f"]]
    assert slurm.dealt(teams("a"), 1, 3) == teams("a")


def test_the_script_says_what_the_settings_say(place: Place, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    path = tmp_path / "slurm.yaml"
    path.write_text(
        "partition: gpu\naccount: me\nqos: long\ntime: 1:30:00\ntasks: 5\nat_once: 3\ncpus_per_task: 6\n"
        "gpus_per_task: 1\ngres: 'gpu:a100:1'\nmemory: 16G\nsignal_s: 200\nsetup: [module load cuda]\n"
        'sbatch: {constraint: "a b\'c", exclusive: true}\n'
    )
    lines = slurm.script(teams("quick"), place, Crew(settings=path)).splitlines()
    for name, value in {
        "partition": "gpu", "account": "me", "qos": "long", "time": "90", "array": "0-4%3", "cpus-per-task": "6",
        "gpus-per-task": "1", "gres": "gpu:a100:1", "mem": "16G", "signal": "USR2@200",
        "constraint": "'a b'\"'\"'c'",
    }.items():  # fmt: skip
        assert f"#SBATCH --{name}={value}" in lines
    assert {"#SBATCH --exclusive", "#SBATCH --requeue", "module load cuda"} <= set(lines)
    assert f'export PYTHONPATH={Path(slurm.__file__).parents[2]}"${{PYTHONPATH:+:$PYTHONPATH}}"' in lines
    assert not (place.out / "launch").exists()


def test_one_task_is_a_job_of_its_own(place: Place, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    (tmp_path / "slurm.yaml").write_text("tasks: 1\n")
    assert "--array" not in slurm.script(teams("quick"), place, Crew(settings=tmp_path / "slurm.yaml"))


def test_the_command_line_shows_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("submitit")
    sweep = ["--benchmark", "cmu_mosi", "--method", "late_fusion", "--seeds", "0", "--out", str(tmp_path / "out")]
    assert cli.main(["run", *sweep, "--launcher", "slurm", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("#!/bin/bash")
    assert cli.main(["run", *sweep, "--launcher", "local", "--dry-run"]) == cli.BAD_INPUT
    assert "submits nothing" in capsys.readouterr().err


def test_without_submitit_one_line_says_how_to_get_it(
    place: Place, crew: Crew, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("submitit", "submitit.slurm.slurm"):
        monkeypatch.setitem(sys.modules, name, None)
    for call in (slurm.script, lambda *asked: slurm.array(*asked, lambda event: None)):
        with pytest.raises(InputError, match="pip install"):
            call(teams("quick"), place, crew)
    assert not list(place.out.glob("launch/clcr-*"))


def test_names_that_slurm_would_read_otherwise_are_refused(place: Place, crew: Crew, cluster: Path) -> None:
    for call in (slurm.script, lambda *asked: slurm.array(*asked, lambda event: None)):
        with pytest.raises(InputError, match="without '%'"):
            call(teams("quick"), replace(place, out=place.out / "50%j"), crew)


def test_a_folder_that_others_can_write_to_is_refused(place: Place, crew: Crew, cluster: Path) -> None:
    (place.out / "launch").mkdir()
    (place.out / "launch").chmod(0o777)
    with pytest.raises(InputError, match="chmod 700"):
        slurm.array(teams("quick"), place, crew, lambda event: None)
    (place.out / "launch").rmdir()
    (place.out / "launch").symlink_to(place.cache)
    place.cache.mkdir()
    with pytest.raises(InputError, match="chmod 700"):
        slurm.array(teams("quick"), place, crew, lambda event: None)


def test_what_is_submitted_is_the_script_and_lies_in_a_private_folder(place: Place, crew: Crew, cluster: Path) -> None:
    pytest.importorskip("submitit")
    (cluster.parent / "slurm.yaml").write_text(f"{CONFIG}wait: false\n")
    assert slurm.array(teams("quick", seeds=3), place, crew, lambda event: None) == []
    (folder,) = place.out.glob("launch/clcr-*")
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    expected = slurm.script(teams("quick", seeds=3), place, crew).replace("clcr-DATE", folder.name)
    assert (cluster / "script").read_text().split() == expected[: expected.rindex("# 3 runs")].split()

    notes: list[Event] = []
    assert slurm.array(teams("quick", seeds=3), place, crew, notes.append) == []
    assert len(calls(cluster, "sbatch")) == 1, "an array that lives was submitted again"
    assert "lives" in notes[0].note
    slurm.array(teams("quick", seeds=4), place, crew, lambda event: None)
    assert len(calls(cluster, "sbatch")) == 2
    newest = max(place.out.glob("launch/clcr-*"), key=lambda path: path.stat().st_mtime_ns)
    assert slurm._Job.read(newest).teams == (teams("quick", seeds=4)[3],)


def test_runs_that_are_told_something_else_are_other_runs(place: Place, crew: Crew, cluster: Path) -> None:
    submitted(cluster, place, teams("quick"))
    parent, keys = place.out / "launch", set(teams("quick")[0])
    assert [found.name for found in slurm._living(parent, place, keys, retry=False)] == ["clcr-1"]
    assert not slurm._living(parent, place, keys, retry=True)
    assert not slurm._living(parent, replace(place, overrides=("training.lr=1",)), keys, retry=False)
    assert not slurm._living(parent, place, {replace(KEY, seed=9)}, retry=False)
    submitted(cluster, place, teams("quick"), number=2, retry_before=1.0)
    assert [found.name for found in slurm._living(parent, place, keys, retry=True)] == ["clcr-2"]
    (cluster / "queue").write_text("somebody\n")
    assert not slurm._living(parent, place, keys, retry=False)


def test_nothing_is_submitted_where_the_queue_cannot_be_seen(place: Place, crew: Crew, cluster: Path) -> None:
    submitted(cluster, place, teams("quick"))
    (cluster / "queue").unlink()
    with pytest.raises(InputError, match="squeue does not answer"):
        slurm.array(teams("quick"), place, crew, lambda event: None)


def test_what_sbatch_refuses_is_told_in_one_line_and_leaves_nothing(place: Place, crew: Crew, cluster: Path) -> None:
    pytest.importorskip("submitit")
    (cluster / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    with pytest.raises(InputError, match=r"invalid partition; correct .*slurm.yaml"):
        slurm.array(teams("quick"), place, crew, lambda event: None)
    assert not list(place.out.glob("launch/clcr-*"))


def test_the_listener_hears_how_runs_go_elsewhere(place: Place, crew: Crew, cluster: Path) -> None:
    runs = teams("quick", "raises", seeds=2)
    launch.local(runs[:1], place, Crew(engine="fake_engine"), lambda event: None)
    submitted(cluster, place, runs, asked_at=time.time())
    events: list[Event] = []
    act = elsewhere(place, runs, cluster)
    results = slurm.array(runs, place, crew, lambda event: (events.append(event), act(event))[0])
    assert {f"{r.key.method}-{r.key.seed}": r.state for r in results} == {
        "quick-0": "kept", "quick-1": "done", "raises-0": "failed", "raises-1": "failed"
    }  # fmt: skip
    assert [event.result for event in events if event.kind == "end"] == results
    assert next(r for r in results if r.state == "failed").error == "RuntimeError: the method broke"
    assert calls(cluster, "scancel") == ["scancel --state=PENDING --name=clcr-1"]


def test_failures_from_before_count_unless_they_are_to_be_tried_again(place: Place, crew: Crew, cluster: Path) -> None:
    launch.local(teams("raises"), place, Crew(engine="fake_engine"), lambda event: None)
    now = time.time() + 1
    submitted(cluster, place, teams("raises"), asked_at=now)
    assert [r.state for r in slurm.array(teams("raises"), place, crew, lambda event: None)] == ["failed"]
    submitted(cluster, place, teams("raises"), number=2, asked_at=now, retry_before=now)
    (cluster / "queue").write_text("clcr-2\n")
    (cluster.parent / "slurm.yaml").write_text(f"{CONFIG}wait: false\n")
    assert slurm.array(teams("raises"), place, crew, lambda event: None) == []


def test_an_array_that_ends_before_its_runs_is_told_with_its_logs(place: Place, crew: Crew, cluster: Path) -> None:
    runs = teams("quick", "refused")
    folder = submitted(cluster, place, runs)
    (folder / "refused-0.json").write_text(json.dumps([[str(runs[1][0]), "x.yaml: mend it"]]))

    def listen(event: Event) -> None:
        (cluster / "queue").write_text("")

    results: dict[str, Result] = {r.key.method: r for r in slurm.array(runs, place, crew, listen)}
    assert {name: r.state for name, r in results.items()} == {"quick": "refused", "refused": "refused"}
    assert results["refused"].error == "x.yaml: mend it"
    assert "all tasks have ended and 2 runs are not done" in results["quick"].error
    assert f"{folder}/*_log.err" in results["quick"].error
    assert "the same command goes on" in results["quick"].error


def test_an_interruption_leaves_the_array_and_says_how_to_end_it(place: Place, crew: Crew, cluster: Path) -> None:
    submitted(cluster, place, teams("quick"))
    notes: list[str] = []

    def listen(event: Event) -> None:
        notes.append(event.note)
        if event.kind == "tick":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        slurm.array(teams("quick"), place, crew, listen)
    assert "`scancel --name=clcr-1` ends it" in notes[-1]
    assert not calls(cluster, "scancel")


def element(folder: Path) -> subprocess.Popen[bytes]:
    """The first element, as the script starts it."""
    environment = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "7", "SLURM_PROCID": "0"}
    environment |= {"SLURM_ARRAY_TASK_ID": "0", "PYTHONPATH": f"{slurm.ROOT}:{os.environ['PYTHONPATH']}"}
    command = [sys.executable, "-m", "submitit.core._submit", str(folder)]
    return subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def at_work(place: Place, cluster: Path, crew: Crew) -> subprocess.Popen[bytes]:
    """An element of an array that was submitted, and executes a run that goes on until it is stopped."""
    pytest.importorskip("submitit")
    (cluster.parent / "slurm.yaml").write_text(f"{CONFIG}wait: false\n")
    slurm.array(teams("stoppable", "quick"), place, crew, lambda event: None)
    process = element(next(place.out.glob("launch/clcr-*")))
    deadline = time.monotonic() + 60
    while not fake_engine.executed(place.cache):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0].decode()
        time.sleep(0.05)
    return process


def test_before_its_time_is_up_an_element_stops_its_runs_and_is_requeued(
    place: Place, cluster: Path, crew: Crew
) -> None:
    process = at_work(place, cluster, crew)
    process.send_signal(signal.SIGUSR2)
    told = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 255, told
    assert calls(cluster, "scontrol") == ["scontrol requeue 7_0"]
    assert list(place.out.glob("runs/*/stoppable/full/.seed-000.*/checkpoint.pt")), told

    again = element(next(place.out.glob("launch/clcr-*")))
    told = again.communicate(timeout=60)[0].decode()
    assert again.returncode == 0, told
    assert [r.state for r in slurm.array(teams("stoppable", "quick"), place, crew, lambda event: None)] == ["done"] * 2


@pytest.mark.parametrize(("state", "requeued"), [("RUNNING", ["scontrol requeue 8"]), ("COMPLETING", [])])
def test_an_element_that_is_terminated_stops_its_runs_and_is_requeued(
    place: Place, cluster: Path, crew: Crew, state: str, requeued: list[str]
) -> None:
    (cluster / "state").write_text(f"{state}\n")
    process = at_work(place, cluster, crew)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 128 + signal.SIGTERM, told
    assert list(place.out.glob("runs/*/stoppable/full/.seed-000.*/checkpoint.pt")), told
    assert calls(cluster, "scontrol") == requeued


def test_it_stands_in_the_table_of_launchers() -> None:
    assert launch.launcher("slurm") is slurm.array
