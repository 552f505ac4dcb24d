"""Forms of a mask over maps: their losses against loops, and the table."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from cim_plugin import cli
from cim_plugin.algorithms.split_maps import Split, weighted_mean
from cim_plugin.errors import InputError
from scripts.evidence import __main__ as command
from scripts.evidence import forms
from scripts.evidence.settings import RULE

LABELS, ENVIRONMENTS = torch.tensor([0, 0, 1, 1, 0, 1]), torch.tensor([0, 1, 0, 1, 1, 0])


def test_l_con_is_the_mean_over_pairs_of_how_alike_negatives_are_less_that_of_positives():
    kept = torch.randn(6, 5, dtype=torch.float64)
    centred = kept - kept.mean(0)
    positives, negatives = [], []
    for i in range(6):
        for j in range(6):
            alike = F.cosine_similarity(centred[i], centred[j], dim=0)
            if LABELS[i] == LABELS[j] and ENVIRONMENTS[i] != ENVIRONMENTS[j]:
                positives.append(alike)
            if LABELS[i] != LABELS[j] and ENVIRONMENTS[i] == ENVIRONMENTS[j]:
                negatives.append(alike)
    expected = 0.5 * (torch.stack(negatives).mean() - torch.stack(positives).mean())
    found = forms.Contrast()(torch.empty(0), Split(kept[:, :1], kept, kept), LABELS, ENVIRONMENTS)
    torch.testing.assert_close(found, expected)


def test_an_adversary_learns_as_usual_and_m_the_opposite():
    maps, m = torch.randn(6, 3, 4, 4), torch.rand(6, 1, 4, 4).requires_grad_()
    adversary = forms.Adversary(3)
    split = Split(m, m.mean((2, 3)), m.mean((2, 3)))
    loss = adversary(maps, split, LABELS, ENVIRONMENTS)
    plain = F.cross_entropy(adversary.head(weighted_mean(adversary.values(maps), m)), ENVIRONMENTS)
    torch.testing.assert_close(loss, plain)
    wanted = [m, *adversary.parameters()]
    ours, usual = (torch.autograd.grad(each, wanted) for each in (loss, plain))
    assert usual[0].abs().max() > 0
    torch.testing.assert_close(ours, (-usual[0], *usual[1:]))


@pytest.fixture(scope="module")
def run(inputs, tmp_path_factory):
    """A tiny run of ERM with pseudo-environments. Not to be changed."""
    output = tmp_path_factory.mktemp("output")
    words = ["subgroups", "--root_dir", inputs.root, "--weights", inputs.weights, "--output_dir", output]
    tiny = "--n_epochs 1 --side 32 --cross_fit 1 --search 0 --seeds 1 --at_once 1 --rows ERM".split()
    assert command.run(command.make_parser().parse_args([*map(str, words), *tiny])) == 0
    return output / "32px_1epochs/ERM/lr_0.0001/seed_0"


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


@pytest.mark.slow
def test_on_the_test_a_form_has_what_retrain_gives(inputs, run, tmp_path):
    chosen = [form for form in forms.FORMS if form.name in ("maps", "split")]
    found, _ = forms.table_of_test(chosen, [str(run)], str(inputs.root)).split("\n\n")
    expected = []
    for form in chosen:
        log_dir = tmp_path / form.name
        words = ["--method", form.name, "--root_dir", inputs.root, "--log_dir", log_dir]
        assert cli.main(["retrain", str(run), *map(str, words)]) == 0
        test = json.loads((log_dir / "results.json").read_text())["selection"][RULE]["splits"]["test"]
        worst = min(group["accuracy"] for group in test["groups"].values())
        expected.append([form.says, "1", f"{100 * worst:.1f}", f"{100 * test['accuracy']:.1f}"])
    assert cells(found) == expected


@pytest.mark.slow
def test_runs_of_one_seed_are_refused(inputs, run):
    with pytest.raises(InputError, match="has seed 0, as another of these runs has"):
        forms.table_of_test(forms.FORMS[:1], [str(run), str(run)], str(inputs.root))


@pytest.mark.slow
def test_the_table_has_a_line_per_form(inputs, run):
    chosen = forms.FORMS[::4]  # a fit takes three seconds, at any size of images
    lines = cells(forms.table(chosen, str(run), str(inputs.root), seeds=1))
    assert [line[0] for line in lines] == [form.says for form in chosen]
    assert all(0 <= float(line[1]) <= 100 for line in lines)
    assert [line[2] == "" for line in lines] == [True, False] and 0 <= float(lines[1][2]) <= 1
