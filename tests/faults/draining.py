"""An extraction on two nodes of which one gets SIGTERM, as a machine that is preempted does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ray.cluster_utils import Cluster

from tests.faults.killing import Killer, extraction
from ulcmod_dist.extract.monitor import ExtractionProgress
from ulcmod_dist.runtime.ray_token import quiet_ray
from ulcmod_dist.runtime.rundir import RunDir

GRACE_SECONDS = 60


def main() -> None:
    """Run as a process of its own: RUN FOLDER."""
    url, folder = sys.argv[1:]
    quiet_ray()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    words = ["start", f"--address={cluster.address}", "--num-cpus=1", "--block"]
    node = subprocess.Popen(
        [Path(sys.executable).parent / "ray", *words, "--disable-usage-stats"],
        env=os.environ | {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(GRACE_SECONDS)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    told: list[float] = []
    left: list[int] = []

    def watch(progress: ExtractionProgress) -> None:
        if not told and progress.actors == 2 and progress.shards_done >= 2:
            node.send_signal(signal.SIGTERM)
            told.append(time.monotonic())
        elif told and not left and progress.actors == 1:
            left.append(progress.shards - progress.shards_done)

    done = extraction(
        RunDir(url),
        Killer(folder),
        cluster.address,
        # Long enough that a busy machine tells Ray of the signal before the shards are used up.
        1.5,
        workers=None,
        cpus=1.0,
        on_progress=watch,
    )
    node.wait()
    answer = {
        "digest": done.snapshot.digest,
        "failures": done.progress.failures,
        "shards_left": left[0] if left else 0,
        "seconds": time.monotonic() - told[0],
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
