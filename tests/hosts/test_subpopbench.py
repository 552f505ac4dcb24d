"""Our algorithms inside SubpopBench, and everything else of it as it was: on a small host, and on the real one."""

from __future__ import annotations

import json
import textwrap

import pytest
from hosts import forked_host, small_subpopbench

from cim_plugin import catalog

OURS = list(catalog.ALGORITHMS)
TRAIN = ("-m", "subpopbench.train")

#: what their steps log beside "loss" and "L_sup"
MORPHING = {"L_con", "no_triplet", "mask_mean", "mask_std", "gap_mean", "gap_std"}
TERMS = {
    "CIM": MORPHING,
    "CIM_VIB": MORPHING | {"KL"},
    "VIB": {"KL"},
    "SCL_E2E": {"L_scl"},
    "CnC": {"L_scl"},
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_subpopbench.write(tmp_path_factory.mktemp("host"))


def train(host, *words: str, plugin: str = "1", **environment: str):
    return forked_host.run(host, *TRAIN, *words, CIM_PLUGIN_AUTOLOAD=plugin, **environment)


def said(done) -> list[dict]:
    """The lines of a run that ended well, as JSON."""
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def line_of_error(done) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr
    return line


@pytest.mark.parametrize("algorithm", OURS)
def test_it_trains_and_predicts(algorithm, small):
    *steps, end = said(train(small, "--algorithm", algorithm))
    assert [set(step) for step in steps] == [{"loss", "L_sup", *TERMS[algorithm]}] * 2
    assert all(isinstance(value, float) for step in steps for value in step.values())
    assert steps[0]["loss"] != steps[1]["loss"]
    length = 256 if "VIB" in algorithm else 4
    assert [len(row) for row in end["logits"]] == [2, 2] and end["features"] == [2, length]


def test_without_its_own_losses_it_is_the_hosts_erm(small):
    """The same weights, batches and SGD."""
    ours = said(train(small, "--algorithm", "SCL_E2E", "--hparams", '{"scl_weight": 0}', "--steps", "3"))
    erm = said(train(small, "--algorithm", "ERM", "--steps", "3"))
    for ours_of_step, erm_of_step in zip(ours[:-1], erm[:-1]):
        assert ours_of_step["loss"] == pytest.approx(erm_of_step["loss"], rel=1e-5)
    for ours_of_image, erm_of_image in zip(ours[-1]["logits"], erm[-1]["logits"]):
        assert ours_of_image == pytest.approx(erm_of_image, rel=1e-4)


@pytest.mark.parametrize("algorithm", ["ERM", "DFR"])
def test_the_hosts_own_gives_the_same_with_the_plugin_on_and_off(algorithm, small):
    on, off = (train(small, "--algorithm", algorithm, plugin=plugin) for plugin in "10")
    assert said(on) == said(off)


def test_attributes_that_are_not_known_change_nothing_without_pairs_across_them(small):
    known, unknown = (said(train(small, "--algorithm", "CIM", "--train_attr", word)) for word in ("yes", "no"))
    assert known == unknown


def test_pairs_across_attributes_need_them(small):
    words = ("--algorithm", "CIM", "--hparams", '{"cim_pairs": "cross_environment"}')
    said(train(small, *words))
    assert "needs at least 2 training environments, 1 here" in line_of_error(train(small, *words, "--train_attr", "no"))


def test_groupdro_trains_without_a_gpu(small):
    off = train(small, "--algorithm", "GroupDRO", plugin="0")
    assert off.returncode == 1 and "CUDA" in off.stderr.upper()  # else this shows nothing
    said(train(small, "--algorithm", "GroupDRO"))


def test_names_and_hyperparameters_stand_beside_the_hosts_own(small):
    code = """
    import json
    from subpopbench import command_launchers, hparams_registry as registry
    from subpopbench.learning import algorithms
    hparams = {
        name: [registry.default_hparams(name, "Noise"), registry.random_hparams(name, "Noise", 3)]
        for name in algorithms.ALGORITHMS
    }
    print(json.dumps([algorithms.ALGORITHMS, list(command_launchers.REGISTRY), hparams]))
    """
    on, off = (
        json.loads(forked_host.run(small, "-c", textwrap.dedent(code), CIM_PLUGIN_AUTOLOAD=plugin).stdout)
        for plugin in "10"
    )
    assert on[0] == off[0] + OURS and on[1] == off[1] + ["cim_local", "cim_submitit"]
    assert {name: on[2][name] for name in off[0]} == off[2]
    for name in OURS:
        default, drawn = on[2][name]
        own = catalog.hyperparameters(name)
        assert {key: value for key, value in default.items() if key not in own} == off[2]["ERM"][0]
        assert {key: default[key] for key in own} == {key: entry.default for key, entry in own.items()}
        assert drawn.keys() == default.keys()


@pytest.mark.parametrize(
    "words, expected",
    [
        (("--dataset", "Words"), "CIM works on images, --dataset Words holds text"),
        (("--dataset", "Tables"), "CIM works on images, --dataset Tables holds tables"),
        (("--hparams", '{"cim_lambda": -1}'), "cim_lambda=-1 is not a finite number of at least 0"),
        (("--hparams", '{"cim_lamda": 1}'), "did you mean 'cim_lambda'?"),
        (("--hparams", '{"batch_sise": 1}'), "did you mean 'batch_size'?"),
        (("--hparams", "cim_lambda"), "is not JSON"),
        (("--hparams", '{"batch_size": 32}'), "the training split has 16 images, fewer than batch_size=32"),
        (("--hparams", '{"model": "resnet_18"}'), "--model 'resnet_18' is neither small_cnn nor"),
        (("--hparams", '{"model": "small_cnn", "model_kwargs": 3}'), "model_kwargs is 3, not an object"),
        (("--steps", "0"), "--steps 0 is not a number of steps of at least 1"),
        (("--data_dir", "nowhere"), "--data_dir nowhere must hold Noise and its metadata"),
    ],
)
def test_what_cannot_be_used_is_one_line(words, expected, small):
    assert expected in line_of_error(train(small, "--algorithm", "CIM", *words))


def test_an_encoder_that_carries_no_psi_is_not_taken_over(small):
    words = ("--algorithm", "DFR", "--stage1_algo")
    assert "--stage1_algo CIM: DFR takes its encoder and not its" in line_of_error(train(small, *words, "CIM"))
    said(train(small, *words, "VIB"))


@pytest.mark.parametrize("algorithm", ["ERM", "CIM"])
def test_a_network_of_another_name_is_everybodys(algorithm, small):
    (*_, end) = said(train(small, "--algorithm", algorithm, "--hparams", '{"model": "small_cnn"}'))
    assert end["features"] == [2, 64]


def test_a_checkpoint_of_the_host_is_read_as_plain_weights(small, tmp_path):
    words = ("--algorithm", "CIM", "--output_dir", str(tmp_path), "--steps", "1")
    said(train(small, *words))
    code = f"""
    import torch
    from subpopbench.learning import algorithms, early_stopping
    saved = torch.load({str(tmp_path / "model.pkl")!r}, weights_only=True)
    assert type(saved["early_stopper"]) is early_stopping.EarlyStopping
    weights = [name for name in saved["model_dict"] if name.startswith("featurizer.")]
    print(len(weights))
    """
    done = forked_host.run(small, "-c", textwrap.dedent(code))
    assert done.returncode == 0 and int(done.stdout) == 2, done.stderr


def test_the_hosts_default_launcher_does_not_wait_for_a_gpu_for_ever(small):
    code = "from subpopbench import command_launchers\ncommand_launchers.REGISTRY['multi_gpu'](['true'])"
    assert "--command_launcher cim_local" in line_of_error(forked_host.run(small, "-c", code))
