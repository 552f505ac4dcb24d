"""Code in the process of a host that makes two algorithms at the same seed and gives them the same batches."""

from __future__ import annotations

import json
import textwrap

from hosts import forked_host

#: two algorithms with the same seed, on the same batches
MAKE = """
import contextlib, json, sys, torch
from domainbed import algorithms, hparams_registry
torch.set_num_threads(1)

def make(name, seed=0, **changes):
    hparams = {**hparams_registry.default_hparams(name, "Debug28"), **changes}
    torch.manual_seed(seed)
    with contextlib.redirect_stdout(sys.stderr):
        return algorithms.get_algorithm_class(name)((3, 28, 28), 2, 3, hparams)

def batches(seed=0, size=4, brightness=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [(brightness * torch.rand(size, 3, 28, 28, generator=generator), torch.arange(size) % 2) for _ in range(3)]
"""


def ask(host, code: str, plugin: str = "1", timeout: int = 100):
    """The JSON that code prints last."""
    done = forked_host.run(host, "-c", f"{MAKE}\n{textwrap.dedent(code)}", CIM_PLUGIN_AUTOLOAD=plugin, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
