"""A host of our own in the shape of SubpopBench: the modules, names and calls that the plugin meets there, on noise."""

from __future__ import annotations

from pathlib import Path

FILES = {
    "utils/misc.py": """
        import hashlib

        def seed_hash(*words):
            return int(hashlib.md5(str(words).encode()).hexdigest(), 16) % 2**31
        """,
    "hparams_registry.py": """
        from subpopbench.utils import misc

        def _hparams(algorithm, dataset, random_seed):
            text, table = dataset == "Words", dataset == "Tables"
            hparams = {
                "nonlinear_classifier": (False, False),
                "group_balanced": (False, False),
                "pretrained": (True, True),
                "lr": (1e-3, 1e-3 * (1 + random_seed)),
                "weight_decay": (1e-4, 1e-4),
                "optimizer": ("adamw", "adamw") if text else ("sgd", "sgd"),
                "last_layer_dropout": (0.0, 0.0),
                "batch_size": (8, 8),
            }
            return {**hparams, "mlp_width": (8, 8)} if table else hparams

        def default_hparams(algorithm, dataset):
            return {name: pair[0] for name, pair in _hparams(algorithm, dataset, 0).items()}

        def random_hparams(algorithm, dataset, seed):
            return {name: pair[1] for name, pair in _hparams(algorithm, dataset, seed).items()}
        """,
    "models/networks.py": """
        import torch

        class ImportedModel(torch.nn.Module):
            def __init__(self, network, n_outputs, input_shape, hparams, pretrained=True, freeze_bn=False):
                super().__init__()
                self.network, self.n_outputs = network, n_outputs

            def forward(self, x):
                return self.network(x)

        class Small(torch.nn.Sequential):
            n_outputs = 4

            def __init__(self, channels):
                pool = torch.nn.AdaptiveAvgPool2d(1)
                super().__init__(torch.nn.Conv2d(channels, 4, 3, 2), torch.nn.ReLU(), pool, torch.nn.Flatten())

        def Featurizer(data_type, input_shape, hparams):
            return Small(input_shape[0])

        def Classifier(in_features, out_features, is_nonlinear=False):
            return torch.nn.Linear(in_features, out_features)
        """,
    "learning/algorithms.py": """
        import torch
        from subpopbench.models import networks

        ALGORITHMS = ["ERM", "GroupDRO", "DFR"]

        def get_algorithm_class(name):
            return globals()[name]

        def mixup_data(x, y, alpha=1.0, device="cpu"):
            return x[torch.randperm(len(x)).to(device)]

        class Algorithm(torch.nn.Module):
            def __init__(
                self, data_type, input_shape, num_classes, num_attributes, num_examples, hparams, grp_sizes=None
            ):
                super().__init__()
                self.hparams, self.data_type = hparams, data_type
                self.num_classes, self.num_attributes, self.num_examples = num_classes, num_attributes, num_examples

        class ERM(Algorithm):
            def __init__(self, data_type, input_shape, num_classes, *more, **words):
                super().__init__(data_type, input_shape, num_classes, *more, **words)
                self.featurizer = networks.Featurizer(data_type, input_shape, self.hparams)
                self.classifier = networks.Classifier(
                    self.featurizer.n_outputs, num_classes, self.hparams["nonlinear_classifier"]
                )
                self.network = torch.nn.Sequential(self.featurizer, self.classifier)
                decay = self.hparams["weight_decay"]
                self.optimizer = torch.optim.SGD(
                    self.network.parameters(), self.hparams["lr"], weight_decay=decay, momentum=0.9
                )

            def update(self, minibatch, step):
                _, x, y, _ = minibatch
                loss = torch.nn.functional.cross_entropy(self.predict(x), y, reduction="none").mean()
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                return {"loss": loss.item()}

            def return_feats(self, x):
                return self.featurizer(x)

            def predict(self, x):
                return self.network(x)

        class GroupDRO(ERM):
            def __init__(self, *words, **more):
                super().__init__(*words, **more)
                self.register_buffer("q", torch.ones(self.num_classes * self.num_attributes).cuda())

        class DFR(ERM):
            pass
        """,
    "learning/early_stopping.py": """
        class EarlyStopping:
            def __init__(self):
                self.best_score = None
        """,
    "dataset/fast_dataloader.py": """
        import torch

        class InfiniteDataLoader:
            def __init__(self, dataset, weights, batch_size, num_workers):
                self.batches = torch.utils.data.DataLoader(dataset, batch_size, drop_last=True)

            def __iter__(self):
                while True:
                    yield from self.batches
        """,
    "dataset/datasets.py": """
        import os
        import torch

        DATASETS = ["Noise", "Words", "Tables"]

        class Noise(torch.utils.data.Dataset):
            INPUT_SHAPE, data_type, num_labels = (3, 224, 224), "images", 2

            def __init__(self, root, split, hparams, train_attr="yes"):
                if root == "nowhere":
                    open(os.path.join(root, "noise", "metadata.csv"))
                generator = torch.Generator().manual_seed(0)
                pixels = torch.rand(16, 3, 224, 224, generator=generator)
                mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
                self.images = (pixels - mean[:, None, None]) / std[:, None, None]
                self.a = [i // 2 % 2 if train_attr == "yes" else 0 for i in range(16)]
                self.num_attributes, self.group_sizes = len(set(self.a)), [4] * 4

            def __len__(self):
                return 16

            def __getitem__(self, i):
                return i, self.images[i], torch.tensor(i % 2), torch.tensor(self.a[i])
        """,
    "command_launchers.py": """
        def multi_gpu_launcher(commands):
            raise SystemExit("it would wait for ever")

        REGISTRY = {"multi_gpu": multi_gpu_launcher}
        """,
    "train.py": """
        import argparse
        import json
        import os
        import torch
        from subpopbench import hparams_registry
        from subpopbench.dataset import datasets
        from subpopbench.learning import algorithms, early_stopping
        from subpopbench.dataset.fast_dataloader import InfiniteDataLoader

        if __name__ == "__main__":
            parser = argparse.ArgumentParser()
            parser.add_argument("--dataset", default="Noise", choices=datasets.DATASETS)
            parser.add_argument("--algorithm", default="ERM", choices=algorithms.ALGORITHMS)
            parser.add_argument("--train_attr", default="yes", choices=["yes", "no"])
            parser.add_argument("--data_dir", default="data")
            parser.add_argument("--output_dir", default=os.environ.get("TMPDIR", "."))
            parser.add_argument("--hparams")
            parser.add_argument("--hparams_seed", type=int, default=0)
            parser.add_argument("--seed", type=int, default=0)
            parser.add_argument("--steps", type=int, default=2)
            parser.add_argument("--stage1_algo", default="ERM")
            args = parser.parse_args()
            os.makedirs(args.output_dir, exist_ok=True)
            hparams = hparams_registry.default_hparams(args.algorithm, args.dataset)
            if args.hparams:
                hparams.update(json.loads(args.hparams))
            torch.manual_seed(args.seed)
            data = vars(datasets)[args.dataset](args.data_dir, "tr", hparams, train_attr=args.train_attr)
            loader = iter(InfiniteDataLoader(data, None, hparams["batch_size"], 0))
            algorithm = algorithms.get_algorithm_class(args.algorithm)(
                data.data_type, data.INPUT_SHAPE, data.num_labels, data.num_attributes, len(data), hparams,
                grp_sizes=data.group_sizes)
            for step in range(args.steps):
                algorithm.train()
                print(json.dumps(algorithm.update(next(loader), step)))
            algorithm.eval()
            with torch.no_grad():
                print(json.dumps({"logits": algorithm.predict(data.images[:2]).tolist(),
                                  "features": list(algorithm.return_feats(data.images[:2]).shape)}))
            torch.save({"args": vars(args), "early_stopper": early_stopping.EarlyStopping(),
                        "model_dict": algorithm.state_dict()}, os.path.join(args.output_dir, "model.pkl"))
        """,
}


def write(folder: Path) -> Path:
    """The host below a folder, which has no __init__.py, as the real one."""
    from textwrap import dedent

    for name, text in FILES.items():
        file = folder / "subpopbench" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
    return folder
