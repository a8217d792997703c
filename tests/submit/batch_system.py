"""Slurm on a machine of its own: a controller, one node, one partition."""

import os
import secrets
import shutil
from pathlib import Path

import pytest

from tests.submit.hosts import Host, wait_for

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue")
SYSTEM_PATH = os.pathsep.join(["/usr/sbin", "/sbin", os.environ.get("PATH", "")])
needs_slurm = pytest.mark.skipif(
    any(shutil.which(name, path=SYSTEM_PATH) is None for name in DAEMONS),
    reason="needs Slurm and munge (Debian: slurm-wlm, munge)",
)

CONFIGURATION = """\
ClusterName=small
SlurmctldHost={name}({address})
SlurmUser=root
AuthType=auth/munge
# A job that is put back waits until its credential has expired.
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
JobRequeue=1
KillWait=10
SlurmctldParameters=enable_configless
NodeName={name} NodeAddr={address} CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=all Nodes={name} Default=YES MaxTime=INFINITE State=UP
"""


def environment(folder: Path) -> dict[str, str]:
    """What the commands of Slurm have to be told."""
    return {"SLURM_CONF": str(folder / "slurm.conf")}


def start(machine: Host, folder: Path) -> None:
    """Start munge and Slurm, and wait until the node is idle."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            name=machine.name,
            address=machine.address,
            folder=folder,
            cpus=os.cpu_count(),
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 - 512,
        )
    )
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    places = [f"--{name}={folder}/munge.{name}" for name in ("socket", "pid-file", "log-file")]
    machine.start(
        "munged", "--foreground", "--force", f"--key-file={key}", *places,
        f"--seed-file={folder}/munge.seed", output=folder / "munge.out",
    )  # fmt: skip
    wait_for(lambda: (folder / "munge.socket").exists(), 30, "munge")
    machine.start("slurmctld", "-D", output=folder / "slurmctld.out")
    machine.start("slurmd", "-D", "-N", machine.name, output=folder / "slurmd.out")
    wait_for(
        lambda: machine.run("sinfo", "--noheader", "--format=%T", check=False).strip() == "idle",
        60,
        "an idle node",
    )
