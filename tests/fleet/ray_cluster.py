"""A Ray cluster of several nodes on this machine, as a process that is told by its input.

Prints its address. Then `add` adds a node of one CPU and prints its id; `add GPUS ADDRESS` one with
GPUs, for accounts alone, that takes itself for another machine. `kill ID` kills one as a machine
dies that loses its power, as far as Ray's own processes go; `settle` answers once the cluster knows
of all that was added and killed. The end of its input ends it.
"""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster

STORE_BYTES = 80 * 2**20
MEMORY_BYTES = 4 * 2**30  # for accounts alone: nobody holds a worker to it


def main() -> None:
    head = {
        "num_cpus": 0,  # no worker is put there
        "memory": MEMORY_BYTES,
        "object_store_memory": STORE_BYTES,
        "include_dashboard": False,
        "_system_config": {
            "health_check_initial_delay_ms": 0,
            "health_check_period_ms": 500,
            "health_check_failure_threshold": 3,
        },
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = {}
    try:
        print(cluster.address, flush=True)
        for line in sys.stdin:
            word, *rest = line.split()
            if word == "add":
                node = cluster.add_node(
                    num_cpus=1,
                    **({"num_gpus": int(rest[0]), "node_ip_address": rest[1]} if rest else {}),
                    memory=MEMORY_BYTES,
                    object_store_memory=STORE_BYTES,
                    include_dashboard=False,
                )
                nodes[node.node_id] = node
                print(node.node_id, flush=True)
            elif word == "settle":
                cluster.wait_for_nodes()
                print("settled", flush=True)
            else:
                cluster.remove_node(nodes.pop(rest[0]), allow_graceful=False)
                print("killed", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
