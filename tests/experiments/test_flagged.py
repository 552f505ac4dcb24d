"""``python -m scripts.flags``: what is counted, what is kept, and models whose labels give way."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn


@pytest.fixture
def made():
    """A task in which the nuisance is easy and ties 90% of the images of every class; 16 features."""
    from scripts.experiments.flag_tasks import FlagTask

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 600)
    nuisance = np.where(rng.random(600) < 0.9, labels, 1 - labels)
    features = rng.normal(size=(600, 16)).astype("float32")
    features[:, 0] += 8 * nuisance - 4
    images, parts = torch.from_numpy(features), {"train": slice(0, 400), "val": slice(400, None)}
    return FlagTask(
        {key: images[part] for key, part in parts.items()},
        {key: torch.from_numpy(labels)[part] for key, part in parts.items()},
        torch.from_numpy(nuisance)[:400],
        ("a", "b", "c", "d"),
        lambda: nn.Linear(16, 2),
        tiles=1,
    )


@pytest.mark.parametrize("row", ["uniform, 300 steps", "balanced, 300 steps", "balanced, auto"])
@pytest.mark.slow
def test_flagged_images_are_counted_by_group(made, row):
    from scripts.flags import measure

    found = measure(made, row, 1, 32, 0)
    expected = [int(((made.labels["train"] == y) & (made.environments == e)).sum()) for y in (0, 1) for e in (0, 1)]
    assert found["count"] == expected and len(found["curve"]) == (0 if "300" in row else len(found["curve"]))
    common, rare = (0, 3), (1, 2)
    assert all(found["flagged"][group] <= 0.05 * expected[group] for group in common)
    assert all(found["flagged"][group] >= 0.9 * expected[group] for group in rare)


COUNTED = {"steps": 300, "count": [50, 10, 5, 20], "flagged": [5, 8, 5, 0], "groups": list("abcd")}


def test_the_same_command_does_what_is_missing(made, tmp_path):
    from scripts import flags

    done = {f"{row}, seed {seed}": COUNTED for row in flags.ROWS for seed in (0, 1)}
    missing = "balanced, 300 steps, seed 1"
    (tmp_path / "demo.json").write_text(json.dumps({name: cell for name, cell in done.items() if name != missing}))
    args = flags.make_parser().parse_args(["--seeds", "2", "--models", "1", "--output_dir", str(tmp_path)])
    args.tasks, asked = ["demo"], []
    for _ in range(2):
        flags.fill(args, {"demo": lambda folders, seed: asked.append(seed) or made})
    found = json.loads((tmp_path / "demo.json").read_text())
    assert asked == [1] and found.keys() == done.keys() and found[missing]["models"] == 1
    assert all(found[name] == COUNTED for name in done if name != missing)


def test_the_table_has_shares():
    from scripts import flags

    lines = flags.table("demo", {f"{row}, seed {seed}": COUNTED for row in flags.ROWS for seed in (0, 1)}, 2)
    # recalls 5/50, 8/10, 5/5, 0/20; precisions 8/13, 5/5
    assert "| balanced, auto | 2 | 300 | 10 ± 0 | 80 ± 0 | 100 ± 0 | 0 ± 0 | 62 ± 0 | 100 ± 0 |" in lines.splitlines()


@pytest.mark.parametrize("logit, given_way", [(0.0, 0), (50.0, 32)])
def test_labels_give_way_to_certainty_and_never_to_chance(logit, given_way):
    from scripts.experiments.flipping import FlippingModels

    class Constant(nn.Module):
        """Says class 1, as surely as it is told."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(logit))

        def forward(self, images):
            return torch.stack([torch.zeros(len(images)), self.weight.expand(len(images))], 1)

    seen, labels = [], torch.arange(64) % 2 * 0
    draws = [torch.arange(32).view(1, 32), torch.arange(32, 64).view(1, 32)]
    models = FlippingModels(
        [Constant(), Constant()],
        [lambda loss: seen.append(loss.item())] * 2,
        draws,
        torch.cat([labels[:63], torch.tensor([1])]),
        lambda split, batches, seeds: (torch.zeros(len(rows), 1) for rows in batches),
    )
    models.train(0, 1)
    (of_pair,) = models.of_pair
    assert int(of_pair[:32].sum()) == given_way and len(seen) == 2
