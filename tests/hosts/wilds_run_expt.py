"""``examples/run_expt.py`` of a WILDS checkout in a fork, with stand-ins for what only other data sets need."""

from __future__ import annotations

import textwrap
from pathlib import Path
from subprocess import CompletedProcess

from hosts import forked_host

#: a module of the name ``transformers`` with the names that the examples import, and torch_scatter's one function in a
#: loop
TRANSFORMERS = "import torch\nAdamW = torch.optim.AdamW\nBertTokenizerFast = DistilBertTokenizerFast = None\n"


FLAGS = (
    "-d waterbirds --root_dir {root} --model resnet18 --model_kwargs pretrained=False --transform image_base "
    "--target_resolution 28 28 --batch_size 8"
)


FLAGS += (
    " --lr 1e-3 --weight_decay 0 --loader_kwargs num_workers=0 --log_every 1 --log_dir {log_dir} --algorithm "
    "{algorithm}"
)


def run_expt(
    examples: Path,
    shims: Path,
    release: Path,
    log_dir: Path,
    algorithm: str,
    *words: str,
    then: str = "",
    **environment: str,
) -> CompletedProcess:
    """``python examples/run_expt.py`` with these words, or with ``then`` its module's main after the code of
    ``then``.
    """
    flags = FLAGS.format(root=release, log_dir=log_dir, algorithm=algorithm).split()
    code = f"""
import os, runpy, sys
own, sys.stdout = sys.stdout, open(os.dup(1), "w")  # the host closes its standard output
sys.path.insert(0, {str(examples)!r})
sys.argv = ["run_expt.py", *{[*flags, *words]}]
"""
    start = (
        f"import run_expt\n{textwrap.dedent(then)}\nrun_expt.main()"
        if then
        else f"runpy.run_path({str(examples / 'run_expt.py')!r}, run_name='__main__')"
    )
    code += f"try:\n{textwrap.indent(start, '    ')}\nfinally:\n    sys.stdout = own\n"
    return forked_host.run(shims, "-c", code, cwd=log_dir.parent, **environment)
