"""An extraction on two nodes of which one is lost, and a third that joins."""

import json
import sys
from itertools import count

from ray.cluster_utils import Cluster

from tests.faults.killing import Killer, extraction
from ulcmod_dist.extract.monitor import ExtractionProgress
from ulcmod_dist.runtime.ray_token import quiet_ray
from ulcmod_dist.runtime.rundir import RunDir


def main() -> None:
    """Run as a process of its own: RUN FOLDER."""
    url, folder = sys.argv[1:]
    quiet_ray()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    actors, steps = [], count()

    def watch(progress: ExtractionProgress) -> None:
        actors.append(progress.actors)
        if max(actors) == 2 and progress.shards_done >= 2 and next(steps) == 0:
            cluster.remove_node(second, allow_graceful=False)
            cluster.add_node(num_cpus=1)

    done = extraction(
        RunDir(url),
        Killer(folder),
        cluster.address,
        0.3,
        workers=None,
        cpus=1.0,
        on_progress=watch,
    )
    answer = {"digest": done.snapshot.digest, "actors": max(actors), "lost": next(steps) > 0}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
