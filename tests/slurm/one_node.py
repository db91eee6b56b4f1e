"""A SLURM of its own on this machine: controller, authentication and a few nodes on loopback, in one private folder.

Nothing of the system's SLURM is read or written (SLURM_CONF names the private slurm.conf) and no init system is needed.
Each node is a node daemon with a port of its own, so that one can be killed while the others go on. Needs root, and the
packages slurm-wlm and munge. ``with running(folder) as cluster`` ends every daemon and every job at its end; daemons
are children of the calling process and end with that, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "scontrol", "squeue", "scancel")
REQUEUE_S = 5  # SLURM lets what was requeued wait one second longer than its credentials are valid; the least is 5
NODE_TIMEOUT_S = 6
KILL_WAIT_S = 15

CONFIGURATION = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={requeue_s}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=0
KillWait={kill_wait_s}
SlurmdTimeout={node_timeout_s}
ReturnToService=2
MinJobAge=3600
OverTimeLimit=0
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 State=UP
PartitionName=high Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF State=UP
"""


def missing() -> str:
    """Why no SLURM can be started here; "" where one can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    return "" if os.geteuid() == 0 else "needs root"


class Cluster:
    """The SLURM in a folder."""

    def __init__(self, folder: Path, nodes: tuple[str, ...], cpus: int) -> None:
        self.folder, self.nodes = folder, nodes
        self._daemons: list[subprocess.Popen[bytes]] = []
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        (folder / "state").mkdir(parents=True)
        host = socket.gethostname().partition(".")[0]
        ports = _free_ports(1 + len(nodes))
        text = CONFIGURATION.format(
            host=host, port=ports[0], folder=folder, requeue_s=REQUEUE_S, node_timeout_s=NODE_TIMEOUT_S,
            kill_wait_s=KILL_WAIT_S,
        )  # fmt: skip
        for name, port in zip(nodes, ports[1:], strict=True):
            text += f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=1000\n"
            (folder / f"spool.{name}").mkdir()
        (folder / "slurm.conf").write_text(text)
        (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)

    def start(self) -> None:
        """Start all daemons; returns when the nodes are idle."""
        files = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={self.folder}/munge.{end}" for option, end in files.items()]
        self._daemon("munged", "--foreground", "--force", f"--key-file={self.folder}/munge.key", *options)
        wait_for((self.folder / "munge.socket").exists, 10, "munge")
        self._daemon("slurmctld", "-D")
        for node in self.nodes:
            self._daemon("slurmd", "-D", "-N", node)
        wait_for(self._idle, 30, "idle nodes")

    def _daemon(self, *command: str) -> None:
        quiet = subprocess.DEVNULL
        self._daemons.append(
            subprocess.Popen(
                command, env=self.environment, cwd=self.folder, stdin=quiet, stdout=quiet, stderr=quiet,
                preexec_fn=_die_with_parent,
            )
        )  # fmt: skip

    def _idle(self) -> bool:
        with contextlib.suppress(subprocess.SubprocessError):  # the controller is not up yet
            return self.run("sinfo", "-h", "-p", "low", "-o", "%T") == "idle"
        return False

    def run(self, *command: str) -> str:
        """What a command of SLURM prints; CalledProcessError where it fails."""
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout.strip()

    def jobs(self) -> list[dict[str, str]]:
        """All jobs since the start, ended ones too, with the fields of `scontrol show job`."""
        lines = self.run("scontrol", "--oneliner", "show", "job").splitlines()
        return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines if line.startswith("JobId=")]

    def kill_node(self, node: str) -> None:
        """What a node that loses its power does: its daemon, its steps and their processes are gone at once."""
        everything = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        heads = [pid for pid in everything if self._logs_to(pid, node)]
        for pid in [each for head in heads for each in (head, *_descendants(head))]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _logs_to(self, pid: int, node: str) -> bool:
        """Whether a process has the log of a node open, as its daemon has and what manages its steps."""
        with contextlib.suppress(OSError):
            files = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
            return f"{self.folder}/slurmd.{node}.log" in files
        return False

    def log(self) -> str:
        """What the controller says."""
        return (self.folder / "slurmctld.log").read_text()

    def stop(self) -> None:
        """End all jobs and all daemons."""
        for node in self.nodes:
            self.kill_node(node)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            daemon.wait(20)


@contextlib.contextmanager
def running(folder: Path, nodes: tuple[str, ...] = ("one", "two"), cpus: int = 2) -> Iterator[Cluster]:
    """A SLURM for as long as it lasts, in an empty folder with a short path."""
    cluster = Cluster(folder, nodes, cpus)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def wait_for(condition: object, seconds: float, what: str) -> None:
    """Return once a condition holds; TimeoutError where it does not within some seconds."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(path.name))
    found, front = [], [pid]
    while front:
        front = [child for each in front for child in parents.get(each, ())]
        found += front
    return found
