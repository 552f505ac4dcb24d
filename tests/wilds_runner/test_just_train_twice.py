"""JTT: what the first model gets wrong of its own training images is drawn more often; stopped, killed and resumed.

CnC with pseudo-environments is killed and resumed here, too.
"""

from __future__ import annotations

import functools
import signal
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from small_runs import (
    SIZES,
    after_steps,
    ctrl_c_in,
    finish,
    prepared,
    read_metadata,
    relative_files,
    results,
    rows_of_epochs,
    rule_folder,
    start,
    train,
    words,
)
from test_cross_fit_runs import read_pseudo
from test_resume import RUN as THREE_EPOCHS
from test_resume import assert_same_run, stop_at

from cim_plugin.algorithms.pseudo_environments import Found
from cim_plugin.errors import InputError
from cim_plugin.wilds_runner import cross_fit
from cim_plugin.wilds_runner.loading import make_loader, seed_of, to_pixels

pytestmark = pytest.mark.slow

STEPS = 6
ROWS = {
    "JTT": (*THREE_EPOCHS, "--jtt_steps", str(STEPS), "--jtt_upweight", "7"),
    "CnC": (*THREE_EPOCHS, "--cross_fit", "8"),
}


@pytest.fixture(scope="module")
def run_of(release, tmp_path_factory):
    """A function: algorithm -> the folder of a finished run. Not to be changed."""

    @functools.lru_cache
    def run(algorithm: str):
        log_dir = tmp_path_factory.mktemp(algorithm)
        assert train(release, log_dir, *ROWS[algorithm], algorithm=algorithm) == 0
        return log_dir

    return run


@pytest.fixture
def run(run_of):
    return run_of("JTT")


def test_the_file_holds_what_one_model_takes_its_own_training_images_for(release, tmp_path):
    """A model trained by hand on the images of all batches gives the same predictions."""
    loop = prepared(release, tmp_path, *ROWS["JTT"], "--n_epochs", "1", algorithm="JTT")
    loop.run()
    session, config = loop.training.session, loop.training.config
    labels = session.data.splits["train"].labels

    def pixels(split: str, rows):
        loader = make_loader(config, session.data, split, session.transform, None, augment=False)
        return to_pixels(next(loader([[(row, 0) for row in rows.tolist()]])).images, "cpu")

    draws = torch.Generator().manual_seed(seed_of(config.seed, "cross_fit", "batches", 0))
    model = cross_fit.reference_model(session, 0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    for rows in torch.randint(SIZES["train"], (STEPS, config.batch_size), generator=draws):
        optimizer.zero_grad()
        F.cross_entropy(model(pixels("train", rows)), labels[rows]).backward()
        optimizer.step()
    model.eval()
    for split in ("train", "val"):
        with torch.no_grad():
            logits = model(pixels(split, torch.arange(SIZES[split])))
        clear = (logits[:, 0] - logits[:, 1]).abs() > 1e-3  # what rounding may turn is left out
        predicted = torch.tensor([environment for _, environment in read_pseudo(tmp_path)[split]])
        assert clear.float().mean() > 0.9 and torch.equal(predicted[clear], logits.argmax(1)[clear])


def test_the_run_draws_what_was_wrong_more_often_from_its_first_batch_on(release, tmp_path):
    loop, order_of_steps = prepared(release, tmp_path, *ROWS["JTT"], "--n_epochs", "1", algorithm="JTT"), []
    with after_steps(lambda number, _: number <= STEPS or order_of_steps.append(rows_of_epochs(loop))):
        loop.run()
    assert len(order_of_steps) == 3 and all(rows == order_of_steps[0] for rows in order_of_steps)
    wrong = [label != environment for label, environment in read_pseudo(tmp_path)["train"]]
    drawn = Counter(row for number in range(200) for batch in loop.training.order.epoch(number) for row, _ in batch)
    of_wrong, of_right = ([drawn[row] for row in range(SIZES["train"]) if wrong[row] == kind] for kind in (True, False))
    assert 0 < len(of_wrong) < SIZES["train"]
    assert sum(of_wrong) / len(of_wrong) == pytest.approx(7 * sum(of_right) / len(of_right), rel=0.15)


def test_log_and_results_say_how_many_were_wrong_and_a_rule_goes_by_them(run):
    pairs = read_pseudo(run)
    shares = {split: sum(a == b for a, b in pairs[split]) / len(pairs[split]) for split in pairs}
    assert results(run)["agreeing_pseudo_environments"] == pytest.approx(shares)
    said = ", ".join(f"{100 * (1 - share):.1f}% of {split}" for split, share in shares.items())
    assert f"JTT: the first model is wrong for {said}\n" in (run / "log.txt").read_text()
    assert rule_folder(run, "worst_pseudo_group").is_dir()


def test_a_first_model_that_errs_nowhere_is_told(release, tmp_path):
    training = prepared(release, tmp_path, algorithm="JTT").training
    said = cross_fit.in_words(training, Found(*(training.data.splits[key].labels for key in ("train", "val")), 6, []))
    assert "warning: nothing is upweighted, so this is ERM; give fewer --jtt_steps than 6" in said


@pytest.mark.parametrize(
    "flags, message",
    [
        (
            "--cross_fit 5",
            "--cross_fit 5 balances batches by pseudo-environments, JTT draws what its first model gets wrong more "
            "often; leave one out",
        ),
        (
            "--uniform_over_groups",
            "JTT draws what its first model gets wrong more often, --uniform_over_groups true by groups; leave one out",
        ),
        ("--jtt_steps 0", "jtt_steps=0 is not a whole number of at least 1 (default 100)"),
        ("--jtt_upweight 0.5", "jtt_upweight=0.5 is not a finite number of at least 1 (default 20.0)"),
    ],
)
def test_what_does_not_go_with_it_is_refused_in_one_line(configure, flags, message):
    with pytest.raises(InputError) as error:
        configure("--algorithm", "JTT", *flags.split())
    assert str(error.value) == message


# --- stopped and killed -----------------------------------------------------------------------------------------------


def test_ctrl_c_in_the_first_phase_and_in_the_training_loses_nothing(release, tmp_path, run):
    with ctrl_c_in(tmp_path, None):
        assert train(release, tmp_path, *ROWS["JTT"], algorithm="JTT") == 130
    assert "cross_fit.csv" not in relative_files(tmp_path)
    with ctrl_c_in(tmp_path, 1):
        assert train(release, tmp_path, *ROWS["JTT"], "--resume", algorithm="JTT") == 130
    assert train(release, tmp_path, *ROWS["JTT"], "--resume", algorithm="JTT") == 0
    assert_same_run(tmp_path, run)


MOMENTS = {
    "in the first phase": ("reference", "reference_model", 1),
    "in an epoch": ("loop", "_step", 5),
    "in an evaluation": ("predict", "predict", 3),
}


@pytest.mark.parametrize("algorithm", ROWS)
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(release, tmp_path, run_of, algorithm, moment):
    argv = words(release, tmp_path, *ROWS[algorithm], "--resume", algorithm=algorithm)
    owner, name, call = moment
    assert finish(start(argv, functools.partial(stop_at, owner, name, call, signal.SIGKILL))) == -signal.SIGKILL
    assert finish(start(argv)) == 0
    assert_same_run(tmp_path, run_of(algorithm))


def test_labels_of_groups_are_not_looked_at_in_the_first_phase(release, run):
    rows = read_metadata(release / "waterbirds_v1.0")
    labels = [int(row["y"]) for row in rows if row["split"] == "0"]
    assert [label for label, _ in read_pseudo(run)["train"]] == labels
