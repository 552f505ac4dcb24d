"""Forms of a mask over maps: their losses against loops, and the table."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cim_plugin.algorithms.split_maps import Split, weighted_mean
from scripts.evidence import __main__ as command
from scripts.evidence import forms

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


@pytest.mark.slow
def test_the_table_has_a_line_per_form(inputs, tmp_path, capsys):
    words = ["subgroups", "--root_dir", inputs.root, "--weights", inputs.weights, "--output_dir", tmp_path]
    tiny = "--n_epochs 1 --side 32 --cross_fit 1 --search 0 --seeds 1 --at_once 1 --rows ERM".split()
    assert command.run(command.make_parser().parse_args([*map(str, words), *tiny])) == 0, capsys.readouterr().err
    chosen = forms.FORMS[::4]  # a fit takes three seconds, at any size of images
    table = forms.table(chosen, str(tmp_path / "32px_1epochs/ERM/lr_0.0001/seed_0"), str(inputs.root), seeds=1)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert [line[0] for line in lines] == [form.says for form in chosen]
    assert all(0 <= float(line[1]) <= 100 for line in lines)
    assert [line[2] == "" for line in lines] == [True, False] and 0 <= float(lines[1][2]) <= 1
