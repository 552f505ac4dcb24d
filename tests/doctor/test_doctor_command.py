"""The traps of a given command line: how it is understood, and what it would run into when it is started."""

from __future__ import annotations

import os
import shlex
import socket
import sys

import pytest
import torch
from hosts import forked_host
from interpreters import SMALL_HOST

from cim_plugin import autoload
from cim_plugin.data.digits_on_photos import digits_on_photos
from cim_plugin.doctor import dry_start, places, traps
from cim_plugin.doctor.findings import Surroundings
from cim_plugin.doctor.reporting import Report, read_report
from cim_plugin.errors import InputError

BED = ["--algorithm", "CIM"]
#: command line -> (kind, program, arguments, assignments); None where it is not known
UNDERSTOOD = {
    "cim-plugin train -d waterbirds": ("train", "cim-plugin train", ["-d", "waterbirds"], {}),
    "/opt/x/bin/cim-plugin train": ("train", "cim-plugin train", [], {}),
    "python -m cim_plugin.wilds_runner -d celebA": ("train", "cim_plugin.wilds_runner", ["-d", "celebA"], {}),
    "torchrun --nproc_per_node 2 -m cim_plugin.cli train -d celebA": (
        "train",
        "cim_plugin.cli train",
        ["-d", "celebA"],
        {},
    ),
    "python3.11 -m domainbed.scripts.train --algorithm CIM": ("domainbed train", "domainbed.scripts.train", BED, {}),
    "python -W error -m domainbed.scripts.train --algorithm CIM": (
        "domainbed train",
        "domainbed.scripts.train",
        BED,
        {},
    ),
    "A=1 B='x y' python -m cim_plugin.domainbed train --algorithm CIM": (
        "domainbed train",
        "cim_plugin.domainbed train",
        BED,
        {"A": "1", "B": "x y"},
    ),
    "python domainbed/scripts/train.py --algorithm CIM": ("domainbed train", "domainbed/scripts/train.py", BED, {}),
    "python -m domainbed.scripts.sweep launch": ("domainbed sweep", "domainbed.scripts.sweep", ["launch"], {}),
    "python -m cim_plugin.domainbed sweep launch": ("domainbed sweep", "cim_plugin.domainbed sweep", ["launch"], {}),
    "python /x/examples/run_expt.py -d waterbirds": ("run_expt", "examples/run_expt.py", ["-d", "waterbirds"], {}),
    "cim-plugin data demo": None,
    "cim-plugin": None,
    "python": None,
    "python -m": None,
    "python -m domainbed.scripts.download": None,
    "python -m cim_plugin.domainbed collect_results": None,
    "python -c 'import domainbed.scripts.train'": None,
    "ls -m domainbed.scripts.train": None,
    "A=1": None,
    "''": None,
}


@pytest.mark.parametrize("text", UNDERSTOOD)
def test_a_command_line_is_understood_or_not(text):
    expected, found = UNDERSTOOD[text], traps.understand(shlex.split(text))
    assert (found and (found.kind, found.program, found.arguments, found.environment)) == expected


def look(text: str) -> list[tuple[str, str]]:
    """Level and words of what is said of a command line; words of its fix, too."""
    return [
        (finding.level, f"{finding.what} {finding.fix or ''}")
        for finding in traps.command(Surroundings(None, None, shlex.split(text)))
    ]


def test_what_is_not_known_is_an_error(environment):
    said = environment.ask("--", "ls", "-l")
    assert said.status == 2 and said.of("command") == [("error", "nothing is known of the command 'ls'")]


def test_words_without_the_two_dashes_are_a_command_too(environment):
    said = environment.ask("cim-plugin", "data", "--root_dir", "x")
    assert said.status == 2 and said.of("command")[0][0] == "error"


@pytest.fixture
def with_autoload(monkeypatch):
    """The autoload is on, whatever made this process."""
    monkeypatch.delenv("CIM_PLUGIN_AUTOLOAD", raising=False)
    monkeypatch.setattr(
        sys, "meta_path", [autoload.FINDER, *(finder for finder in sys.meta_path if finder is not autoload.FINDER)]
    )


RUN_EXPT = f"{sys.executable} examples/run_expt.py -d waterbirds --algorithm"


@pytest.mark.parametrize("algorithm", ["CIM", "CIM_VIB", "VIB", "SCL_E2E", "CIM+groupDRO"])
def test_run_expt_of_a_checkout_knows_our_algorithms(algorithm, with_autoload, monkeypatch):
    monkeypatch.setattr(places, "installed", {"transformers": "4.39.3"}.get)
    ((level, words),) = look(f"{RUN_EXPT} {algorithm}")
    assert (
        level == "note"
        and words.startswith(f"run_expt.py knows {algorithm} by the autoload")
        and "'cim-plugin train' takes the same flags" in words
    )
    ((level, words),) = look(f"CIM_PLUGIN_AUTOLOAD=0 {RUN_EXPT} {algorithm}")
    assert level == "error" and words.startswith(f"run_expt.py will not know {algorithm}: the autoload is off")
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if finder is not autoload.FINDER])
    assert look(f"{RUN_EXPT} {algorithm}")[0][0] == "error"
    assert look(f"{RUN_EXPT} ERM") == [
        ("note", "only a run_expt.py with one of our algorithms is looked at 'cim-plugin train' takes the same flags")
    ]


@pytest.mark.parametrize(
    "version, said",
    [(None, "transformers is not installed"), ("4.40.0", "transformers 4.40.0 is installed, <4.40 is needed")],
)
def test_run_expt_needs_transformers(version, said, with_autoload, monkeypatch):
    monkeypatch.setattr(places, "installed", {"transformers": version}.get)
    ((level, words),) = look(f"{RUN_EXPT} CIM")
    assert level == "error" and words.startswith(f"run_expt.py does not start: {said} pip install 'transformers<4.40'")


def test_run_expt_of_another_python(tmp_path, with_autoload, monkeypatch):
    monkeypatch.setattr(places, "installed", {"transformers": "4.39.3"}.get)
    monkeypatch.setenv("PATH", python(tmp_path / "bin", "/elsewhere", False))
    said = look("python examples/run_expt.py -d waterbirds --algorithm CIM")
    assert said[0][0] == "error" and "does not have the plugin" in said[0][1]


# --- the interpreter --------------------------------------------------------------------------------------------------


@pytest.fixture
def without_start(monkeypatch):
    """No command is started, the rest is looked at; there is a DomainBed."""
    monkeypatch.setattr(traps, "_dry_start", lambda *words: [])
    monkeypatch.setattr(traps, "find_host", lambda package: str(SMALL_HOST))


def python(folder, prefix: str, has_plugin: bool, status: int = 0):
    """A program of the name that answers as an interpreter elsewhere does."""
    folder.mkdir()
    (folder / "python").write_text(f"#!/bin/sh\necho {prefix}\necho {has_plugin}\necho broken >&2\nexit {status}\n")
    (folder / "python").chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize(
    "has_plugin, status, level, words",
    [
        (False, 0, "error", "does not have the plugin"),
        (True, 0, "warning", "has the plugin, too"),
        (True, 1, "error", "does not start (broken)"),
    ],
)
def test_another_python_on_the_path(tmp_path, monkeypatch, without_start, has_plugin, status, level, words):
    monkeypatch.setenv("PATH", python(tmp_path / "bin", "/elsewhere", has_plugin, status))
    said = look("python -m cim_plugin.wilds_runner -d waterbirds")
    assert [found for found, _ in said] == [level] and words in said[0][1] and sys.executable in said[0][1]
    said = look("cim-plugin train -d waterbirds")
    assert said == []


def test_no_python_on_the_path(tmp_path, monkeypatch, without_start):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert look("python -m cim_plugin.wilds_runner")[0] == (
        "error",
        f"the command starts 'python', which is not on the PATH start {sys.executable}",
    )


def test_a_sweep_whose_jobs_start_another_python(tmp_path, monkeypatch, without_start):
    monkeypatch.setenv("PATH", python(tmp_path / "bin", "/elsewhere", False))
    sweep = (
        f"{sys.executable} -m cim_plugin.domainbed sweep launch --data_dir d --output_dir o --algorithms CIM "
        f"--datasets Debug28"
    )
    ((level, words),) = look(f"{sweep} --command_launcher local")
    assert level == "error" and "--command_launcher local starts every job" in words and "cim_local" in words
    assert look(f"{sweep} --command_launcher cim_local") == []
    assert look(f"{sweep} --command_launcher cim_loca")[0] == (
        "error",
        "--command_launcher cim_loca is none of DomainBed's (cim_local, local, multi_gpu, dummy) give "
        "--command_launcher cim_local",
    )
    assert look(sweep)[0] == (
        "error",
        "sweep needs --command_launcher give --command_launcher cim_local, which uses the interpreter that runs the "
        "sweep",
    )


#: --algorithms -> those that are started on the first data set, and on the rest
SWEPT = {
    "": (["CIM"], ["CIM"]),
    "--algorithms CIM": (["CIM"], ["CIM"]),
    "--algorithms ERM CIM CORAL VIB CIM": (["ERM", "CIM", "CORAL", "VIB"], ["ERM", "CIM", "VIB"]),
    "--algorithms CIM+CORAL IRM CORAL": (["CIM+CORAL", "IRM", "CORAL"], ["CIM+CORAL", "IRM"]),
    "--algorithms IRM CORAL": (["IRM", "CORAL"], ["IRM"]),
}


@pytest.mark.parametrize("words", SWEPT)
def test_a_sweep_starts_every_algorithm_once_and_ours_on_every_data_set(words, monkeypatch):
    monkeypatch.setattr(
        traps, "_start_domainbed", lambda arguments, environment: [traps.Finding("ok", " ".join(arguments))]
    )
    said = look(
        f"{sys.executable} -m cim_plugin.domainbed sweep launch --data_dir d --command_launcher cim_local {words} "
        f"--datasets Debug28 PACS"
    )
    started = zip(("Debug28", "PACS"), SWEPT[words])
    assert said == [
        ("ok", f"{dataset}, {name}: --dataset {dataset} --algorithm {name} --data_dir d ")
        for dataset, names in started
        for name in names
    ]


# --- DomainBed --------------------------------------------------------------------------------------------------------


def test_the_autoload_off_for_the_hosts_own_script(monkeypatch, without_start):
    train = "-m domainbed.scripts.train --algorithm"
    ((level, words),) = look(f"CIM_PLUGIN_AUTOLOAD=0 {sys.executable} {train} CIM")
    assert level == "error" and "python -m cim_plugin.domainbed train" in words
    assert "will not know CIM+CORAL" in look(f"CIM_PLUGIN_AUTOLOAD=0 {sys.executable} {train} CIM+CORAL")[0][1]
    assert look(f"CIM_PLUGIN_AUTOLOAD=0 {sys.executable} {train} ERM") == []
    assert look(f"CIM_PLUGIN_AUTOLOAD=0 {sys.executable} -m cim_plugin.domainbed train --algorithm CIM") == []
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if finder is not autoload.FINDER])
    assert look(f"{sys.executable} {train} CIM")[0][0] == "error"


def test_an_output_folder_that_holds_a_run_or_is_a_file(tmp_path, without_start):
    (tmp_path / "results.jsonl").touch()
    train = f"{sys.executable} -m cim_plugin.domainbed train --algorithm CIM --output_dir {tmp_path}"
    ((level, words),) = look(train)
    assert level == "warning" and "DomainBed appends to" in words
    assert look(f"{train}/results.jsonl")[0] == (
        "error",
        f"--output_dir {tmp_path}/results.jsonl is a file choose another folder",
    )


def test_no_domainbed(tmp_path, monkeypatch):
    monkeypatch.setattr(traps, "find_host", lambda package: None)
    ((level, words),) = look(f"{sys.executable} -m cim_plugin.domainbed train --algorithm CIM")
    assert level == "error" and "cim-plugin get-domainbed" in words


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


@pytest.mark.parametrize("what", STARTS)
def test_a_training_is_started_up_to_its_first_step(stored, tmp_path, monkeypatch, what):
    hparams, algorithm, levels, words = STARTS[what]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOMAINBED_HOME", str(SMALL_HOST))

    def forked(command, environment=None):  # of a process that has torch already
        return forked_host.run(SMALL_HOST, *command[1:], cwd=tmp_path, **(environment or {}))

    monkeypatch.setattr(traps, "child", forked)
    said = look(
        f"{sys.executable} -m cim_plugin.domainbed train --dataset Stored --data_dir {stored} --algorithm {algorithm} "
        f"--hparams '{hparams}'"
    )
    assert [level for level, _ in said] == levels and words in said[-1][1]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "changed, words",
    [
        (lambda images, labels: (images * 255, labels), "are taken as pixels in [0, 1]; divide them by 255"),
        (lambda images, labels: (images[:, :, :14, :14], labels), "images have the shape (3, 14, 14)"),
        (lambda images, labels: (images, labels + 2), "is out of range: this classifier has 2 classes"),
    ],
)
def test_the_first_images_are_compared_with_what_is_assumed(changed, words, stored, tmp_path, monkeypatch):
    first, *others = torch.load(stored / "environments.pt")  # the small host declares the shape of the first
    torch.save([first, *(changed(*other) for other in others)], tmp_path / "environments.pt")
    monkeypatch.setenv("DOMAINBED_HOME", str(SMALL_HOST))
    monkeypatch.setattr(
        traps, "child", lambda command, environment=None: forked_host.run(SMALL_HOST, *command[1:], cwd=tmp_path)
    )
    said = look(
        f"{sys.executable} -m cim_plugin.domainbed train --dataset Stored --data_dir {tmp_path} --algorithm CIM "
        f"--output_dir {tmp_path / 'out'} --hparams '{{\"batch_size\": 5}}'"
    )
    assert said[-1][0] == "error" and words in said[-1][1]


# --- cim-plugin train -------------------------------------------------------------------------------------------------

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
