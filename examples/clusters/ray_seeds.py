"""Seeds of ``cim-plugin train`` on a Ray cluster: ``python ray_seeds.py 0 1 2 -- -d waterbirds --algorithm CIM ...``.

Every seed is a task with a GPU. A task whose node dies is started again, and ``--resume`` goes on where it was; so
--log_dir is to be a folder that all nodes share.
"""

from __future__ import annotations

import subprocess
import sys

import ray


@ray.remote(num_gpus=1, max_retries=10)
def train(seed: str, flags: list[str], log_dir: str) -> int:
    words = ["train", *flags, "--seed", seed, "--log_dir", f"{log_dir}/seed_{seed}", "--resume"]
    return subprocess.run([sys.executable, "-m", "cim_plugin.cli", *words]).returncode


def main() -> int:
    """The number of seeds that failed."""
    split = sys.argv.index("--")
    seeds, flags = sys.argv[1:split], sys.argv[split + 1 :]
    at = flags.index("--log_dir")
    log_dir = flags[at + 1]
    del flags[at : at + 2]
    return sum(status != 0 for status in ray.get([train.remote(seed, flags, log_dir) for seed in seeds]))


if __name__ == "__main__":
    sys.exit(main())
