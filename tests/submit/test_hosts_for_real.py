"""Three machines, one job: submitted through Ray Jobs, and two of them, or the head, are lost."""

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ray.job_submission import JobSubmissionClient

from tests.submit.hosts import Host, host, needs_root, network, wait_for
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.snapshot import open_snapshot
from ulcmod_dist.submit import ray_jobs
from ulcmod_dist.submit.bundle import JobBundle, create_bundle
from ulcmod_dist.submit.ray_jobs import RayJob

pytestmark = [pytest.mark.faults, needs_root]

DEMO = Path(__file__).parents[2] / "jobs" / "demo"


@dataclass(frozen=True)
class Cluster:
    """A head that drives, and two machines that compute as it does."""

    head: Host
    workers: tuple[Host, Host]
    token: str

    def client(self, home: Path) -> JobSubmissionClient:
        """A connection from outside, with the token."""
        address = f"http://{self.head.address}:8265"
        return ray_jobs.connect(address, {"RAY_AUTH_TOKEN": self.token}, home)

    def alive(self) -> int:
        """Machines that Ray believes in."""
        count = "import ray; ray.init(); print('alive', sum(n['Alive'] for n in ray.nodes()))"
        shown = self.head.run("python", "-c", count)
        return int(shown.split("alive ")[1].split()[0])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("machines")
    known = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "240",
        # A machine that is silent for six seconds is lost.
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "3000",
        "RAY_health_check_failure_threshold": "2",
    }
    with (
        network(94) as switch,
        host(switch, 1, folder, known) as head,
        host(switch, 2, folder, known) as first,
        host(switch, 3, folder, known) as second,
    ):
        start_ray(head, "--head", "--port=6379", "--dashboard-host=0.0.0.0")
        for machine in (first, second):
            start_ray(machine, f"--address={head.address}:6379")
        yield Cluster(head, (first, second), known["RAY_AUTH_TOKEN"])


def start_ray(machine: Host, *options: str) -> None:
    """Start Ray; on a busy machine it may take longer than the half minute that Ray waits."""
    words = (
        "ray", "start", "--disable-usage-stats", "--object-store-memory=100000000",
        "--num-cpus=1", f"--node-ip-address={machine.address}", *options,
    )  # fmt: skip
    for is_last in (False, False, True):
        if "Ray runtime started" in machine.run(*words, check=is_last):
            return
        machine.run("ray", "stop", "--force")
    raise AssertionError("Ray does not say that it has started")


def bundle(folder: Path, name: str) -> JobBundle:
    """The demo's model and corpus in small shards, so that a loss falls in the middle."""
    changes = ["extract.shard_samples=32", "extract.batch_tokens=512", "discover.modules=7"]
    # The search, too, is spread over the machines.
    changes += ["discover.executor=ray", "ablate.with_run=false"]
    # What follows the search is not looked at here.
    changes += ["evaluate.seeds=1", "evaluate.null_permutations=0", "evaluate.baselines=[]"]
    return create_bundle(DEMO / "demo.yaml", [f"run={folder / name}", *changes], "ray")


def finish(job: RayJob) -> None:
    """Wait for a job's end, which has to be a good one."""
    name = job.find().name
    shown = "".join(job.follow_logs(name))
    assert job.get_result(name) == ("SUCCEEDED", 0), shown


def commits(run: Path) -> int:
    return len(list((run / "activations.zarr" / "commits").glob("*.json")))


def contents(run: Path) -> dict[str, str]:
    """Digests of all that is computed: rows, statistics, and who belongs to which module."""
    view = open_snapshot(RunDir.at(run))
    found: dict[str, bytes] = {}
    for split in ("train", "test"):
        activations = view.activations(split)
        found[f"{split} rows"] = np.asarray(activations.raw).tobytes()
        found[f"{split} mean"] = np.asarray(activations.mean).tobytes()
    for name in ("units", "samples"):
        found[name] = (run / "modules" / "K=007" / f"{name}.parquet").read_bytes()
    return {key: hashlib.sha256(value).hexdigest() for key, value in found.items()}


def test_job__loses_two_machines_on_the_way_and_finds_the_same(
    cluster: Cluster, tmp_path: Path
) -> None:
    client = cluster.client(tmp_path)
    undisturbed = RayJob(client, bundle(tmp_path, "undisturbed"))
    undisturbed.submit()
    finish(undisturbed)

    run = tmp_path / "disturbed"
    disturbed = RayJob(client, bundle(tmp_path, "disturbed"))
    disturbed.submit()
    wait_for(lambda: commits(run) >= 3, 240, "some shards")
    cluster.workers[0].cut_off()
    before = commits(run)
    wait_for(lambda: (run / "activations.zarr" / "manifests").is_dir(), 400, "all shards")
    assert commits(run) > before
    wait_for(lambda: list((run / "modules/checkpoints").glob("*.npz")), 240, "an iteration")
    cluster.workers[1].cut_off()
    assert not (run / "modules/K=007/metrics.json").exists(), "the search was over"
    finish(disturbed)

    assert contents(run) == contents(tmp_path / "undisturbed")
    wait_for(lambda: cluster.alive() == 1, 60, "Ray to see what is lost")


def test_job__whose_head_is_lost_goes_on_when_it_is_submitted_again(tmp_path: Path) -> None:
    run, token = tmp_path / "run", secrets.token_hex(32)
    known = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    known["RAY_DASHBOARD_STARTUP_TIMEOUT_S"] = "240"
    store = run / "activations.zarr"
    written: dict[str, int] = {}
    with network(95) as switch:
        for last in (1, 2):
            # The machine is gone, with the driver, at the end of its block.
            with host(switch, last, tmp_path, known) as head:
                start_ray(head, "--head", "--port=6379", "--dashboard-host=0.0.0.0")
                client = Cluster(head, (head, head), token).client(tmp_path)
                assert RayJob(client, bundle(tmp_path, "run")).submit().new
                if last == 1:
                    wait_for(lambda: commits(run) >= 3, 400, "some shards")
                else:
                    wait_for((store / "manifests").is_dir, 400, "all shards")
            now = {file.name: file.stat().st_mtime_ns for file in store.glob("commits/*.json")}
            assert written.items() < now.items()
            written = now
