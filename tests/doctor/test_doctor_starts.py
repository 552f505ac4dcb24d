"""Commands that ``cim-plugin doctor`` starts up to their first step: DomainBed's and ``cim-plugin train``."""

from __future__ import annotations

import os
import shlex
import socket
import sys

import pytest
import torch
from hosts import forked_host
from interpreters import SMALL_HOST
from looking import look

from cim_plugin.data.digits_on_photos import digits_on_photos
from cim_plugin.doctor import dry_start, traps
from cim_plugin.doctor.reporting import DOMAINBED, Report, read_report
from cim_plugin.errors import InputError

#: hyperparameters and the rest of a command for the small host -> (levels, words of the last finding)
STARTS = {
    "all well": ('{"batch_size": 5}', "CIM", ["ok"], "it starts"),
    "a batch larger than an environment": (
        "{}",
        "CIM",
        ["error"],
        "an environment has 6 images to draw from, fewer than batch_size=8",
    ),
    "not JSON": ("{batch_size: 5}", "CIM", ["error"], "is not JSON"),
    "no weights and no network": ('{"batch_size": 5, "offline": true}', "VIB", ["warning", "ok"], "it starts"),
    "an unknown hyperparameter": ('{"batch_size": 5, "cim_lamda": 1}', "CIM", ["error"], "did you mean 'cim_lambda'"),
    "an unknown hyperparameter of a composition": (
        '{"batch_size": 5, "cim_lamda": 1}',
        "CIM+ERM",
        ["error"],
        "did you mean 'cim_lambda'",
    ),
    "a misspelt algorithm": ('{"batch_size": 5}', "CIMM", ["error"], "did you mean 'CIM'"),
    "an unknown algorithm": ('{"batch_size": 5}', "Nobody", ["error"], "Algorithm not found: Nobody"),
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Data of the small host: three environments of six digits on photographs."""
    folder = tmp_path_factory.mktemp("stored")
    torch.save(
        [(images[:6], labels[:6]) for images, labels, _ in digits_on_photos((0.9, 0.8, 0.1), seed=0)],
        folder / "environments.pt",
    )
    return folder


@pytest.fixture
def start_domainbed(tmp_path):
    """A function (data, algorithm, hyperparameters) -> the findings of a dry start in the small host, in a fork of a
    process that has torch already. Nothing is written but the report.
    """

    def started(data, algorithm, hparams):
        words = ["--dataset", "Stored", "--data_dir", str(data), "--algorithm", algorithm, "--hparams", hparams]
        (tmp_path / "report").mkdir()
        (tmp_path / "here").mkdir()
        words = ["-m", "cim_plugin.doctor.dry_start", str(tmp_path / "report"), DOMAINBED, *words]
        done = forked_host.run(SMALL_HOST, *words, cwd=tmp_path / "here")
        assert os.listdir(tmp_path / "here") == []
        return list(traps.outcome(tmp_path / "report", done))

    return started


@pytest.mark.parametrize("what", STARTS)
def test_a_training_is_started_up_to_its_first_step(stored, start_domainbed, what):
    hparams, algorithm, levels, words = STARTS[what]
    said = start_domainbed(stored, algorithm, hparams)
    assert [finding.level for finding in said] == levels and words in said[-1].what


@pytest.mark.slow
def test_a_command_line_is_looked_at_and_started_in_a_process_of_its_own(stored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOMAINBED_HOME", str(SMALL_HOST))
    train = f"{sys.executable} -m cim_plugin.domainbed train --dataset Stored --data_dir {stored} --algorithm CIM"
    assert look(f"{train} --hparams '{{\"batch_size\": 5}}'") == [("ok", "it starts, and comes to its first step ")]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "changed, words",
    [
        (lambda images, labels: (images * 255, labels), "are taken as pixels in [0, 1]; divide them by 255"),
        (lambda images, labels: (images[:, :, :14, :14], labels), "images have the shape (3, 14, 14)"),
        (lambda images, labels: (images, labels + 2), "is out of range: this classifier has 2 classes"),
    ],
)
def test_the_first_images_are_compared_with_what_is_assumed(changed, words, stored, start_domainbed, tmp_path):
    first, *others = torch.load(stored / "environments.pt")  # the small host declares the shape of the first
    torch.save([first, *(changed(*other) for other in others)], tmp_path / "environments.pt")
    said = start_domainbed(tmp_path, "CIM", '{"batch_size": 5}')
    assert said[-1].level == "error" and words in said[-1].what


SMALL = (
    "--model small_cnn --transform image_base --target_resolution 28 --lr 1e-3 --weight_decay 0 --loader_kwargs "
    "num_workers=0"
)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """A function (words) -> what the dry start of a training says, in this process and without network."""
    for name in ("connect", "create_connection", "getaddrinfo"):  # to be put back
        owner = socket.socket if name == "connect" else socket
        monkeypatch.setattr(owner, name, getattr(owner, name))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no_weights"))
    dry_start._cut_network()

    def started(text: str):
        (tmp_path / "report").mkdir()
        try:
            dry_start.train(["-d", "waterbirds", *shlex.split(text)], Report(str(tmp_path / "report")), "")
        except dry_start._Started:
            return read_report(tmp_path / "report")[0]

    return started


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A root with a small release."""
    from wilds_runner.small_runs import write_release

    root = tmp_path_factory.mktemp("root")
    write_release(root)
    return root


def test_a_training_that_starts(start, root):
    ((level, what, _),) = start(f"--algorithm CIM --root_dir {root} {SMALL}")
    assert level == "note" and "SYNTHETIC" in what


def test_the_defaults_of_waterbirds_without_pretraining(start, root):
    said = start(
        f"--algorithm CIM --root_dir {root} --model resnet18 --model_kwargs pretrained=false --loader_kwargs "
        f"num_workers=0"
    )
    assert [level for level, *_ in said] == ["warning", "note"] and "WILDS issue 148" in said[0].what


def test_weights_that_would_be_downloaded(start, root):
    said = start(f"--algorithm CIM --root_dir {root} --model resnet18 --loader_kwargs num_workers=0 --download true")
    assert [level for level, *_ in said] == ["note", "note", "warning"]
    assert "comes from a mirror" in said[0].what and "pretrained weights of resnet18" in said[2].what


#: words after -d waterbirds --algorithm CIM -> what the one line says
REFUSED = {
    "--root_dir nowhere": "--root_dir nowhere does not exist; get it with",
    "--root_dir {root} --model nonsense": "--model 'nonsense'",
    "--root_dir {root} --target_resolution 8": "height 8 is smaller than MS-SSIM's 11-pixel window",
    "--root_dir {root} --cim_lambda -1": "cim_lambda=-1.0",
    "--root_dir {root} --nonsense 1": "unrecognized arguments: --nonsense 1",
    "--root_dir {root} --lr 0": "--lr",
    "--root_dir {root} --precision 16-mixed": "needs a GPU",
    "--root_dir {root} --train_loader group --n_groups_per_batch 9 --distinct_groups true": "more than the 4 groups",
    "--root_dir {root} --optimizer_kwargs nonsense=1": "--optimizer_kwargs",
    "--root_dir {root} --val_metric nonsense": "nonsense",
    "--root_dir {root} --eval_splits nonsense": "--eval_splits 'nonsense' is not a split",
    "--root_dir {root} --loader_kwargs nonsense=1": "--loader_kwargs",
    "": "required: --root_dir",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_train_itself_refuses(start, root, tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError) as refused:
        start(f"--algorithm CIM {SMALL} {text.format(root=root)}")
    assert REFUSED[text] in str(refused.value)
    assert os.listdir(tmp_path) == ["report"]


def test_a_damaged_image(start, tmp_path):
    from wilds_runner.small_runs import write_release

    folder = write_release(tmp_path / "damaged")
    (folder / "000.png").write_bytes((folder / "000.png").read_bytes()[:100])
    with pytest.raises(InputError, match="000.png, cannot be read"):
        start(f"--algorithm CIM --root_dir {tmp_path / 'damaged'} {SMALL}")


def test_a_log_dir_that_holds_a_run(start, root, tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "state.pth").touch()
    said = start(f"--algorithm ERM --root_dir {root} {SMALL} --log_dir {tmp_path / 'logs'}")
    assert said[0].level == "error" and "holds a run already" in said[0].what
