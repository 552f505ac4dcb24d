"""An unmodified SubpopBench: its train script, sweep and tables with our algorithms, on a CPU; packages that only other
data sets and logs need are stood in for.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import shutil
import textwrap
from pathlib import Path

import pytest
import torch
from hosts import forked_host
from models.elsewhere import Asked, ask

import cim_plugin
from cim_plugin import catalog
from cim_plugin.compare import tables
from cim_plugin.runs import find

#: packages of these names with what the host imports of them
STAND_INS = {
    "transformers.py": """
        import torch
        AdamW = torch.optim.AdamW
        AutoModel = AutoTokenizer = BertModel = BertTokenizer = DistilBertModel = DistilBertTokenizer = None
        GPT2Model = GPT2Tokenizer = get_scheduler = None
        """,
    "tensorboard_logger.py": """
        class Logger:
            def __init__(self, logdir, flush_secs):
                pass
            def log_value(self, name, value, step):
                assert isinstance(value, float) or value == 0
        """,
    "netcal/__init__.py": "",
    "netcal/metrics.py": """
        class ECE:
            def measure(self, predictions, targets):
                return 0.0
        """,
}
#: scikit-learn's log_loss as the host calls it
OLDER_SCIKIT_LEARN = """
import sklearn.metrics
inner = sklearn.metrics.log_loss
sklearn.metrics.log_loss = lambda targets, predictions, eps, labels: inner(targets, predictions, labels=labels)
"""
HPARAMS = {"model": "small_cnn", "batch_size": 4}
SPLITS = {"0": 8, "1": 4, "2": 4}  #: split -> images of each group


@pytest.fixture(scope="module")
def host(subpopbench, tmp_path_factory) -> str:
    """The checkout and the stand-ins, as PYTHONPATH has them."""
    pytest.importorskip("pandas", reason="SubpopBench needs pandas")
    folder = tmp_path_factory.mktemp("stand_ins")
    for name, text in STAND_INS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    return f"{folder}:{subpopbench}"


@pytest.fixture(scope="module")
def waterbirds(shared_data, tmp_path_factory) -> Path:
    """A few real images of every group in the host's layout."""
    source = shared_data / "waterbirds_rebuilt" / "waterbirds_v1.0"
    folder = tmp_path_factory.mktemp("data")
    (folder / "waterbirds").mkdir()
    (folder / "waterbirds" / "waterbird_complete95_forest2water2").symlink_to(source)
    seen: dict[tuple, int] = {}
    with open(source / "metadata.csv") as read, open(folder / "waterbirds" / "metadata_waterbirds.csv", "w") as written:
        writer = csv.writer(written)
        writer.writerow(["id", "filename", "split", "y", "a"])
        for row in csv.DictReader(read):
            key = row["split"], row["y"], row["place"]
            seen[key] = seen.get(key, 0) + 1
            if seen[key] <= SPLITS[row["split"]]:
                writer.writerow([row[name] for name in ("img_id", "img_filename", "split", "y", "place")])
    return folder


def run(host: str, code: str, *, plugin: str = "1", **more):
    """Code after the stand-in of scikit-learn, with data loaders in the same process."""
    start = f"{OLDER_SCIKIT_LEARN}\nfrom subpopbench.dataset import datasets\ndatasets.SubpopDataset.N_WORKERS = 0\n"
    return forked_host.run(host, "-c", start + textwrap.dedent(code), CIM_PLUGIN_AUTOLOAD=plugin, timeout=300, **more)


def train(
    host: str,
    data: Path,
    output: Path,
    algorithm: str,
    *words: str,
    plugin: str = "1",
    hparams=HPARAMS,
    seed: int = 0,
    after: str = "",
) -> Path:
    """Two steps, an evaluation after each; the run's folder.

    Args:
        after: a line that the same process runs at its end; what the script has made is in ``found``.
    """
    flags = ["--algorithm", algorithm, "--dataset", "Waterbirds", "--data_dir", str(data), "--output_dir", str(output)]
    flags += ["--output_folder_name", "runs", "--steps", "2", "--checkpoint_freq", "1"]
    flags += ["--hparams", json.dumps(hparams), "--seed", str(seed)]
    code = f"""
    import runpy, sys
    sys.argv = ["train", *{[*flags, *words]}]
    found = runpy.run_module("subpopbench.train", run_name="__main__", alter_sys=True)
    {after}
    """
    done = run(host, code, plugin=plugin)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return output / f"runs_attr{'No' if 'no' in words else 'Yes'}" / f"Waterbirds_{algorithm}_hparams0_seed{seed}"


def records(folder: Path) -> list[dict]:
    """The lines of results.json, without what takes time."""
    lines = [json.loads(line) for line in (folder / "results.json").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in ("step_time", "args")} for line in lines]


@pytest.mark.parametrize("algorithm, words", [("CIM", []), ("CIM_VIB", ["--train_attr", "no"]), ("CnC", [])])
def test_it_trains_and_leaves_what_the_host_leaves(algorithm, words, host, waterbirds, tmp_path):
    folder = train(host, waterbirds, tmp_path, algorithm, *words)
    assert {"args.json", "results.json", "model.pkl", "final_results.pkl", "done"} <= {p.name for p in folder.iterdir()}
    first, second = records(folder)
    assert (first["step"], second["step"]) == (0, 1) and first["loss"] != second["loss"]
    assert set(second["te"]["per_group"]) == {f"y={y},a={a}" for y in range(2) for a in range(2)}


def test_show_opens_its_model_with_the_hosts_data(host, waterbirds, tmp_path):
    folder = train(host, waterbirds, tmp_path, "CIM")
    code = f"""
    import json
    from cim_plugin.show.opening import open_run
    opened = open_run({str(folder)!r}, "test", "worst_group", None)
    shape = list(opened.read([0, 1]).shape)
    print(json.dumps([opened.title, len(opened.labels), opened.group_names, opened.groups.tolist(), shape]))
    """
    done = run(host, code)
    assert done.returncode == 0, done.stderr
    title, n_images, names, groups, shape = json.loads(done.stdout.splitlines()[-1])
    assert title == "CIM on Waterbirds, split test, after its last evaluation" and (n_images, shape) == (
        16,
        [2, 3, 224, 224],
    )
    assert names == ["y=0,a=0", "y=0,a=1", "y=1,a=0", "y=1,a=1"] and sorted(groups) == sorted([0, 1, 2, 3] * 4)


RESNET = {"resnet18": True, "pretrained": False, "batch_size": 4}
LOADED = {"CIM_VIB": (HPARAMS, ["--train_attr", "no"]), "CIM": (RESNET, []), "ERM": (RESNET, [])}


def test_load_gives_the_training_process_s_logits_and_images_without_host_and_data(host, waterbirds, tmp_path):
    asked, expected = [], []
    for algorithm, (hparams, words) in LOADED.items():
        file = tmp_path / f"{algorithm}.pt"
        images = "images = torch.stack([found['test_dataset'][row][1] for row in range(3)])"
        logits = f"torch.save((images, found['algorithm'].predict(images).detach()), {str(file)!r})"
        after = f"import torch; {images}; {logits}"
        folder = train(host, waterbirds, tmp_path, algorithm, *words, hparams=hparams, after=after)
        expected.append(torch.load(file, weights_only=True))
        asked.append(Asked(str(folder), "best", expected[-1][0], first_photographs(waterbirds, 3)))
    for (images, logits), answer in zip(expected, ask(tmp_path, *asked)):
        assert torch.equal(answer["logits"], logits)
        assert torch.equal(torch.stack(answer["prepared"]), images)
        assert answer["class_names"] == ["landbird", "waterbird"]


def first_photographs(data: Path, number: int) -> list[str]:
    """Of the test split."""
    with open(data / "waterbirds" / "metadata_waterbirds.csv") as read:
        names = [row["filename"] for row in csv.DictReader(read) if row["split"] == "2"]
    return [str(data / "waterbirds" / "waterbird_complete95_forest2water2" / name) for name in names[:number]]


NETWORKS = {
    "28": ((3, 28, 28), {}),
    "32": ((3, 32, 32), {}),
    "ResNet-50": ((3, 224, 224), {}),
    "another ResNet-50": ((3, 224, 224), {"image_arch": "resnet_dino_in1k", "resnet18": True}),
    "timm's": ((3, 224, 224), {"image_arch": "vit_sup_in1k"}),
    "TResNet": ((3, 224, 224), {"image_arch": "resnet_sup_in21k"}),
    "torchvision's": ((3, 224, 224), {"image_arch": "vit_sup_swag"}),
    "ours": ((3, 224, 224), {"model": "mobilenetv2_100"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_compute_what_the_hosts_do_to_the_last_bit(name, host, tmp_path):
    """With weights that are not fetched: the host is given random ones."""
    shape, options = NETWORKS[name]
    hparams = {"image_arch": "resnet_sup_in1k", "resnet18": False, "pretrained": False, "last_layer_dropout": 0.0}
    hparams |= {"nonlinear_classifier": True, "lr": 0.1, "weight_decay": 0.0, "optimizer": "sgd", **options}
    code = f"""
    import torch, torchvision
    import subpopbench.learning.early_stopping as early_stopping
    from subpopbench.learning import algorithms
    networks, shape, hparams = algorithms.networks, {shape}, {hparams}
    state = torchvision.models.resnet50(weights=None).state_dict()
    networks.get_torchvision_state_dict = lambda url: {{n: v for n, v in state.items() if not n.startswith("fc.")}}
    networks.load_swag = lambda url: swag()
    def swag():
        made = torchvision.models.vit_b_16(weights=None)
        made.heads = torch.nn.Identity()
        return made
    made = algorithms.ERM("images", shape, 3, 2, 8, hparams)
    images = torch.randn(2, *shape)
    made.eval()
    with torch.no_grad():
        logits = made.predict(images)
    args = {{"algorithm": "ERM", "dataset": "NICOpp", "data_dir": ""}}
    torch.save({{"args": args, "model_hparams": hparams, "model_input_shape": shape, "num_labels": 3,
                "num_attributes": 2, "model_dict": made.state_dict(), "early_stopper": early_stopping.EarlyStopping()}},
               "{tmp_path}/model.pkl")
    torch.save((images, logits), "{tmp_path}/logits.pt")
    """
    done = run(host, code)
    assert done.returncode == 0, done.stderr[-2000:]
    images, logits = torch.load(tmp_path / "logits.pt", weights_only=True)
    with torch.no_grad():
        assert torch.equal(cim_plugin.load(tmp_path / "model.pkl")(images), logits)


def test_the_hosts_own_networks_are_taken(host, waterbirds, tmp_path):
    folder = train(host, waterbirds, tmp_path, "CIM", hparams=RESNET)
    assert records(folder)[0]["hparams"]["resnet18"] is True


@pytest.mark.parametrize("algorithm", ["ERM", "JTT"])
def test_the_hosts_own_gives_the_same_with_the_plugin_on_and_off(algorithm, host, waterbirds, tmp_path):
    on, off = (
        records(train(host, waterbirds, tmp_path / plugin, algorithm, plugin=plugin, hparams=RESNET)) for plugin in "10"
    )
    assert on == off


def test_dfr_takes_the_first_stage_of_the_same_host(host, waterbirds, tmp_path):
    """Its checkpoint holds an object, which torch.load has refused since 2.6."""
    train(host, waterbirds, tmp_path, "ERM")
    train(host, waterbirds, tmp_path, "DFR", "--stage1_folder", "runs_attrYes")


def test_compare_prints_what_collect_results_prints(host, waterbirds, tmp_path):
    for algorithm in ("ERM", "CIM"):
        for seed in range(2):
            train(host, waterbirds, tmp_path, algorithm, seed=seed)
    code = f"""
    import runpy, sys
    sys.argv = ["collect_results", "--input_dir", {str(tmp_path / "runs_attrYes")!r}]
    runpy.run_module("subpopbench.scripts.collect_results", run_name="__main__", alter_sys=True)
    """
    done = run(host, code)
    assert done.returncode == 0, done.stderr
    printed = re.findall(r"^(ERM|CIM) +(\d+\.\d) \+/- (\d+\.\d) +(\d+\.\d) \+/- (\d+\.\d) ", done.stdout, re.M)
    (table,) = tables.build(find.find([str(tmp_path)]).runs, ("oracle", "worst_group", "worst_class"))
    ours = [
        (
            row.family.algorithm,
            *(f"{100 * value:.1f}" for name in ("average", "worst group") for value in row.cells[name][:2]),
        )
        for row in table.rows
    ]
    assert len(printed) == 6 and sorted(printed) == sorted(ours)


def test_a_sweep_launches_ours_beside_the_hosts_own(host, tmp_path):
    words = ["launch", "--output_folder_name", "s", "--dataset", "Waterbirds", "--n_hparams", "2"]
    jobs = {}
    for plugin in "10":
        output = ["--skip_confirmation", "--command_launcher", "dummy", "--output_dir", str(tmp_path / plugin)]
        code = f"""
        import runpy, sys
        sys.argv = ["sweep", *{[*words, *output]}]
        runpy.run_module("subpopbench.sweep", run_name="__main__", alter_sys=True)
        """
        done = run(host, code, plugin=plugin)
        assert done.returncode == 0, done.stderr
        jobs[plugin] = {line for line in done.stdout.splitlines() if line.startswith("Dummy launcher")}
    assert jobs["0"] < jobs["1"]
    ours = {re.search("--algorithm ([^ ]+)", line)[1] for line in jobs["1"] - jobs["0"]}
    assert ours == set(catalog.ALGORITHMS) and len(jobs["1"]) == len(jobs["0"]) + 2 * len(ours)


def test_a_newer_scikit_learn_is_one_line(host, waterbirds, tmp_path):
    words = ["--algorithm", "VIB", "--data_dir", str(waterbirds), "--output_dir", str(tmp_path), "--steps", "1"]
    code = f"""
    sklearn.metrics.log_loss = inner
    import runpy, sys
    sys.argv = ["train", *{[*words, "--hparams", json.dumps(HPARAMS)]}]
    runpy.run_module("subpopbench.train", run_name="__main__", alter_sys=True)
    """
    done = run(host, code)
    assert done.returncode == 2 and "'scikit-learn<1.5'" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "dataset, expected",
    [
        ("Waterbirds", "python -m subpopbench.scripts.download waterbirds --data_path {data} --download"),
        ("CMNIST", "python -m subpopbench.scripts.download cmnist --data_path {data} --download"),
        ("CXRMultisite", "MedicalData.md"),
        ("CivilCommentsFine", "--dataset CivilCommentsFine holds text"),
        ("MultiNLI", "--dataset MultiNLI holds text"),
        ("MIMICNotes", "--dataset MIMICNotes holds tables"),
    ],
)
def test_missing_and_other_data_are_one_line(dataset, expected, host, tmp_path):
    words = [
        "--algorithm",
        "CIM",
        "--dataset",
        dataset,
        "--data_dir",
        str(tmp_path),
        "--output_dir",
        str(tmp_path / "o"),
    ]
    code = f"""
    import runpy, sys
    sys.argv = ["train", *{words}]
    runpy.run_module("subpopbench.train", run_name="__main__", alter_sys=True)
    """
    done = run(host, code)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and expected.format(data=tmp_path) in line and "Traceback" not in done.stderr


def test_cmnist_is_read_as_pixels(host, shared_data, tmp_path):
    """By its own normalisation."""
    raw = tmp_path / "cmnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (shared_data / "MNIST").glob("*.gz"):
        with gzip.open(file) as packed, open(raw / file.stem, "wb") as written:
            shutil.copyfileobj(packed, written)
    code = f"""
    import json, torch
    from subpopbench import hparams_registry
    from subpopbench.learning import algorithms
    hparams = hparams_registry.default_hparams("CIM", "CMNIST")
    hparams |= {{"cmnist_label_prob": 0.5, "cmnist_attr_prob": 0.5, "cmnist_spur_prob": 0.2, "cmnist_flip_prob": 0.25}}
    hparams |= {{"image_arch": "resnet_sup_in1k", "model": "small_cnn"}}
    data = datasets.CMNIST({str(tmp_path)!r}, "tr", hparams)
    batch = [torch.stack([torch.as_tensor(part) for part in parts]) for parts in zip(*[data[i] for i in range(8)])]
    algorithm = algorithms.CIM("images", data.INPUT_SHAPE, data.num_labels, data.num_attributes, len(data), hparams)
    values = algorithm.update(batch, 0)
    pixels = algorithm.model.morphing.pixel_space.to_pixels(batch[1])
    print(json.dumps([values["loss"], pixels.min().item(), pixels.max().item()]))
    """
    done = run(host, code)
    assert done.returncode == 0, done.stderr
    loss, least, largest = json.loads(done.stdout.splitlines()[-1])
    assert loss > 0 and least == pytest.approx(0, abs=1e-6) and largest == pytest.approx(1, abs=0.01)
