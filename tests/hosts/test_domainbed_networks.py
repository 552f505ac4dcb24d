"""``model`` and ``image_size`` in DomainBed: networks by name, photographs at another size, for every algorithm of the
host; and nothing else of it changed.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
import torch
from hosts import forked_host
from hosts.photographs import DOMAINS, write_photographs
from PIL import Image
from torch import nn

from cim_plugin.hosts.domainbed.encoders import NamedNetwork
from cim_plugin.hosts.domainbed.image_size import KeptImages
from cim_plugin.models.encoders import SmallCNN

SIZE = 36
HPARAMS = {"model": "small_cnn", "image_size": SIZE, "batch_size": 2}
TRAIN = ("-m", "domainbed.scripts.train")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_photographs(folder)
    return folder


def words_for(data: Path, algorithm: str, folder: Path, **hparams) -> list[str]:
    words = ["--dataset", "PACS", "--data_dir", str(data), "--algorithm", algorithm, "--test_envs", "3"]
    words += ["--steps", "2", "--checkpoint_freq", "300", "--holdout_fraction", "0.4", "--output_dir", str(folder)]
    return [*words, "--hparams", json.dumps(hparams)]


# --- the real host ---------------------------------------------------------------------------------------------------


@pytest.mark.host
@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ERM", "GroupDRO", "CORAL", "Fish", "CIM", "CIM_VIB", "CIM+CORAL"])
def test_every_algorithm_trains_that_network_at_that_size(algorithm, domainbed, photographs, tmp_path):
    code = """
    import json, runpy, sys
    sys.argv = ["train", *WORDS]
    script = runpy.run_module("domainbed.scripts.train", run_name="__main__", alter_sys=True)
    algorithm, dataset = script["algorithm"], script["dataset"]
    images = next(iter(script["train_loaders"][0]))[0]
    named = [m for m in algorithm.modules() if type(m).__name__ == "NamedNetwork"]
    sizes = sorted({m.n_outputs for m in named})
    print(json.dumps([list(images.shape), dataset.input_shape, dataset.N_WORKERS, sizes]))
    """
    words = words_for(photographs, algorithm, tmp_path, **HPARAMS)
    done = forked_host.run(domainbed, "-c", textwrap.dedent(code).replace("WORDS", repr(words)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[2, 3, SIZE, SIZE], [3, SIZE, SIZE], 0, [64]]
    records = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [0, 1]
    assert all(record["hparams"].items() >= HPARAMS.items() for record in records)


def _reference_image(path: Path, size: int) -> torch.Tensor:
    """Resized by Pillow and standardised by hand, (3, size, size)."""
    small = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    pixels = torch.tensor(list(small.get_flattened_data() if hasattr(small, "get_flattened_data") else small.getdata()))
    pixels = pixels.reshape(size, size, 3).permute(2, 0, 1) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (pixels - mean[:, None, None]) / std[:, None, None]


@pytest.mark.host
def test_evaluation_sees_the_resized_image_and_training_an_augmented_one_each_read_once(
    domainbed, photographs, tmp_path
):
    code = f"""
    import torch
    from domainbed import datasets
    hparams = {{"image_size": {SIZE}, "data_augmentation": True}}
    opened = datasets.PACS({str(photographs)!r}, [3], hparams)
    reads = []
    for environment in opened:
        load = environment.loader.load
        environment.loader.load = lambda path, load=load: reads.append(path) or load(path)
    looks = [[torch.stack([image for image, _ in environment]) for environment in opened] for _ in range(3)]
    torch.save([looks, reads, opened.input_shape], {str(tmp_path / "looks.pt")!r})
    """
    done = forked_host.run(domainbed, "-c", textwrap.dedent(code))
    assert done.returncode == 0, done.stderr
    looks, reads, shape = torch.load(tmp_path / "looks.pt", weights_only=True)
    files = sorted((photographs / "PACS").rglob("*.png"))
    assert shape == (3, SIZE, SIZE) and sorted(reads) == list(map(str, files))
    wanted = torch.stack([_reference_image(file, SIZE) for file in files if DOMAINS[3] in file.parts])
    for look in looks:
        torch.testing.assert_close(look[3], wanted, atol=1e-6, rtol=0)
    assert looks[0][0].shape == (6, 3, SIZE, SIZE) and not torch.equal(looks[0][0], looks[1][0])


#: the host's own network, without fetching its weights and without dozens of processes
AS_EVER = """
import runpy, sys, torch, torchvision
torchvision.models.resnet18 = lambda pretrained, make=torchvision.models.resnet18: make()
from domainbed import datasets
datasets.MultipleDomainDataset.N_WORKERS = 0
sys.argv = ["train", *WORDS]
script = runpy.run_module("domainbed.scripts.train", run_name="__main__", alter_sys=True)
"""


@pytest.mark.host
@pytest.mark.slow
def test_without_these_hyperparameters_a_run_is_the_host_s_own_to_the_last_bit(domainbed, photographs, tmp_path):
    own = {"resnet18": True, "resnet50_augmix": False, "freeze_bn": True, "batch_size": 2}
    weights, records = [], []
    for plugin in "10":
        folder = tmp_path / plugin
        words = words_for(photographs, "CORAL", folder, **own)
        code = AS_EVER.replace("WORDS", repr(words))
        done = forked_host.run(domainbed, "-c", code, CIM_PLUGIN_AUTOLOAD=plugin, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        weights.append(torch.load(folder / "model.pkl", weights_only=True)["model_dict"])
        lines = (json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines())
        records.append([{k: v for k, v in line.items() if k not in ("args", "step_time")} for line in lines])
    assert records[0] == records[1]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.host
@pytest.mark.slow
def test_a_sweep_takes_them_and_collect_results_reads_its_runs(domainbed, photographs, tmp_path):
    words = ["--datasets", "PACS", "--data_dir", str(photographs), "--output_dir", str(tmp_path), "--n_trials", "1"]
    words += ["--algorithms", "ERM", "CIM", "--n_hparams", "1", "--steps", "1", "--single_test_envs"]
    words += ["--hparams", json.dumps(HPARAMS), "--holdout_fraction", "0.4"]
    words += ["--command_launcher", "cim_local", "--skip_confirmation"]
    swept = forked_host.run(
        domainbed, "-m", "domainbed.scripts.sweep", "launch", *words, timeout=300, CIM_PLUGIN_AT_ONCE="2"
    )
    assert swept.returncode == 0, swept.stdout + swept.stderr
    assert len(list(tmp_path.glob("*/done"))) == 8
    told = forked_host.run(domainbed, "-m", "domainbed.scripts.collect_results", "--input_dir", str(tmp_path))
    assert told.returncode == 0, told.stderr
    rows = [line.split() for line in told.stdout.splitlines() if line.startswith(("ERM ", "CIM "))]
    assert len(rows) == 3 * 2 * 2  # selections, algorithms, and a table of averages after each


@pytest.mark.host
@pytest.mark.slow
def test_its_model_is_shown_where_the_weights_that_it_began_from_are_gone(domainbed, photographs, tmp_path):
    weights = tmp_path / "weights.pt"
    torch.save(SmallCNN().state_dict(), weights)
    words = words_for(photographs, "CIM", tmp_path, pretrained_model_path=str(weights), **HPARAMS)
    trained = forked_host.run(domainbed, *TRAIN, *words)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    weights.unlink()
    shown = forked_host.run(domainbed, "-m", "cim_plugin.cli", "show", str(tmp_path), "--split", "test", cwd=tmp_path)
    assert shown.returncode == 0 and (tmp_path / "m.png").stat().st_size > 0, shown.stderr
    (_, last) = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert f"{last['mask_mean']:.1f}" in shown.stdout


REFUSED_BY_THE_HOST_S_DATA = {
    "not a number": ({"image_size": "64"}, "image_size='64' is not a whole number of pixels from 33 to 2048"),
    "a size of raw images": ({"image_size": 28, "model": "small_cnn"}, "image_size=28 is not a whole number"),
    "no network": ({"image_size": 64}, 'image_size=64 needs a network for such images; add "model"'),
}


@pytest.mark.host
@pytest.mark.parametrize("algorithm", ["ERM", "CIM"])
@pytest.mark.parametrize("what", REFUSED_BY_THE_HOST_S_DATA)
def test_a_size_that_cannot_be_used_is_one_line(what, algorithm, domainbed, photographs, tmp_path):
    hparams, says = REFUSED_BY_THE_HOST_S_DATA[what]
    words = words_for(photographs, algorithm, tmp_path, batch_size=2, **hparams)
    _refused(forked_host.run(domainbed, *TRAIN, *words), says)


# --- any host --------------------------------------------------------------------------------------------------------


def _refused(done, says: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = {line for line in done.stderr.splitlines() if line.startswith("error: ")}
    assert says in line and "Traceback" not in done.stderr


REFUSED = {
    "unknown": ({"model": "resnet_18"}, "'resnet_18' is neither small_cnn nor a model of torchvision or timm"),
    "no name": ({"model": 3}, "model is 3, not a name"),
    "no arguments": ({"model": "small_cnn", "model_kwargs": 3}, "model_kwargs is 3, not an object"),
    "no file": ({"model": "small_cnn", "pretrained_model_path": "none.pt"}, "none.pt does not exist"),
    "other weights": ({"model": "small_cnn", "pretrained_model_path": "other.pt"}, "it is not of this --model"),
    "weights of nothing": ({"pretrained_model_path": "other.pt"}, "pretrained_model_path does nothing without model"),
    "other channels": (
        {"model": "small_cnn", "model_kwargs": {"channels": 4}},
        "cannot take images of 3x28x28",
    ),
    "no photographs": (
        {"model": "small_cnn", "image_size": 64},
        "image_size=64 is for data sets of image files, such as PACS; this one has images of 28x28",
    ),
}


@pytest.mark.parametrize("algorithm", ["ERM", "CIM"])
@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_used_is_one_line(what, algorithm, host, tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    hparams, says = REFUSED[what]
    words = ["--dataset", "Debug28", "--algorithm", algorithm, "--output_dir", str(tmp_path / "run")]
    words += ["--hparams", json.dumps({"batch_size": 4, **hparams})]
    _refused(forked_host.run(host, *TRAIN, *words, cwd=tmp_path), says)


def test_weights_of_a_file_are_where_training_begins(host, tmp_path):
    code = f"""
    import torch
    from cim_plugin.models.encoders import SmallCNN
    from domainbed import algorithms, hparams_registry
    torch.save(SmallCNN().state_dict(), {str(tmp_path / "weights.pt")!r})
    own = {{"model": "small_cnn", "pretrained_model_path": {str(tmp_path / "weights.pt")!r}}}
    for name in ("ERM", "CIM"):
        hparams = {{**hparams_registry.default_hparams(name, "Debug28"), **own}}
        made = algorithms.get_algorithm_class(name)((3, 28, 28), 2, 2, hparams)
        (network,) = [module for module in made.modules() if isinstance(module, SmallCNN)]
        saved = torch.load(own["pretrained_model_path"])
        assert all(torch.equal(value, saved[key]) for key, value in network.state_dict().items())
    """
    done = forked_host.run(host, "-c", textwrap.dedent(code))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_is_frozen_where_freeze_bn_says_so(frozen):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    named, before = NamedNetwork(network, 4, {"freeze_bn": frozen}), network[1].running_mean.clone()
    images = torch.rand(5, 3, 8, 8)
    for training in (named, named.eval().train(), nn.Sequential(named).train()[0]):
        in_training = training(images)
        assert torch.equal(network[1].running_mean, before) is frozen
    assert torch.equal(in_training, named.eval()(images)) is frozen
    assert network[1].weight.requires_grad and network[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_dropout_is_that_of_the_host_s_resnet():
    features = torch.ones(1000, 8)
    named = NamedNetwork(nn.Flatten(), 8, {"resnet_dropout": 0.5}).train()
    assert 0.4 < (named(features) == 0).float().mean() < 0.6 and torch.equal(named.eval()(features), features)


def test_an_image_is_loaded_once_and_kept_small():
    loads = []
    keep = KeptImages(lambda path: loads.append(path) or Image.new("RGB", (90, 50)), 40)
    assert [keep(path).size for path in ("a", "b", "a", "a")] == [(40, 40)] * 4 and loads == ["a", "b"]
