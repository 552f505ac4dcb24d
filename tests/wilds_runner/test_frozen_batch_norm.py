"""``--freeze_bn``: batch normalisation that goes by its running statistics in training, and leaves them as they are."""

from __future__ import annotations

import pytest
import torch
from small_runs import read_model, results, train, write_release

from cim_plugin.models.encoders import make_encoder
from cim_plugin.runs.configuration import completed
from cim_plugin.wilds_runner import cross_fit, session

BATCH_NORM = ("--model", "shufflenet_v2_x0_5", "--model_kwargs", "pretrained=false", "--target_resolution", "32")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return write_release(tmp_path_factory.mktemp("release")).parent


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of an encoder whose running statistics are not those of a fresh one, and what is in it."""
    encoder, _ = make_encoder("shufflenet_v2_x0_5", {"pretrained": False}, None)
    generator = torch.Generator().manual_seed(0)
    state = encoder.state_dict()
    for name, value in state.items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.05, generator=generator)
        if name.endswith("running_var"):
            value.uniform_(0.3, 0.5, generator=generator)
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(state, path)
    return path, state


@pytest.mark.parametrize("algorithm", ["ERM", "CIM", "CIM_VIB", "SCL_E2E", "groupDRO"])
def test_statistics_stay_and_weights_move(release, weights, tmp_path, algorithm):
    path, before = weights
    flags = (*BATCH_NORM, "--pretrained_model_path", str(path), "--n_epochs", "1", "--freeze_bn")
    assert train(release, tmp_path, *flags, algorithm=algorithm) == 0
    after = {name.removeprefix("encoder.1."): value for name, value in read_model(tmp_path).items()}
    statistics = [name for name in before if name.endswith(STATISTICS)]
    assert len(statistics) > 100 and all(torch.equal(after[name], before[name]) for name in statistics)
    assert not torch.equal(after["conv1.1.weight"], before["conv1.1.weight"])  # of batch normalisation itself
    assert results(tmp_path)["config"]["freeze_bn"] is True


def test_without_the_flag_statistics_move(release, weights, tmp_path):
    path, before = weights
    assert train(release, tmp_path, *BATCH_NORM, "--pretrained_model_path", str(path), "--n_epochs", "1") == 0
    assert not torch.equal(read_model(tmp_path)["encoder.1.conv1.1.running_mean"], before["conv1.1.running_mean"])


def test_a_training_forward_is_that_of_evaluation_and_without_the_flag_it_is_not(configure, release, weights):
    flags = ("--root_dir", str(release), "--transform", "image_base", *BATCH_NORM, "--cross_fit", "3")
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for frozen in (True, False):
        config = configure(*flags, "--pretrained_model_path", str(weights[0]), "--freeze_bn", str(frozen))
        opened = session.open_session(config, fresh=True)
        for model in (opened.classifier, cross_fit.reference_model(opened, 0)):
            in_training = model.train()(images)
            assert torch.equal(in_training, model.eval()(images)) is frozen
            norms = [module for module in model.train().modules() if isinstance(module, torch.nn.BatchNorm2d)]
            assert {module.training for module in norms} == {not frozen} and model.head.training


def test_where_there_is_no_batch_norm_the_flag_changes_nothing(release, tmp_path):
    for name, flags in (("with", ["--freeze_bn"]), ("without", [])):
        assert train(release, tmp_path / name, *flags, "--n_epochs", "1", algorithm="CIM") == 0
    one, other = (read_model(tmp_path / name) for name in ("with", "without"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_goes_on_only_as_it_began(release, tmp_path, capsys):
    assert train(release, tmp_path, *BATCH_NORM, "--n_epochs", "1", "--freeze_bn") == 0
    assert train(release, tmp_path, *BATCH_NORM, "--n_epochs", "2", "--resume") == 2
    assert "freeze_bn" in capsys.readouterr().err


def test_runs_that_are_older_than_the_flag_moved_their_statistics():
    assert completed({"algorithm": "ERM"})["freeze_bn"] is False


def test_compare_tells_the_rows_apart(release, tmp_path, capsys):
    from cim_plugin import cli

    for name, flags in (("with", ["--freeze_bn"]), ("without", [])):
        assert train(release, tmp_path / name, *BATCH_NORM, *flags, "--n_epochs", "1") == 0
    capsys.readouterr()
    assert cli.main(["compare", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "ERM, freeze_bn=true" in said and "ERM, freeze_bn=false" in said
