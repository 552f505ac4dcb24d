"""Train one algorithm: the order of calls is DomainBed's."""

import argparse
import json
import os

import torch

from domainbed import algorithms, datasets, hparams_registry
from domainbed.lib.fast_data_loader import InfiniteDataLoader

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir")
    parser.add_argument("--dataset", default="Debug28")
    parser.add_argument("--algorithm", default="ERM")
    parser.add_argument("--hparams")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--test_envs", type=int, nargs="+", default=[0])
    parser.add_argument("--output_dir", default=os.environ.get("TMPDIR", "."))
    parser.add_argument("--holdout_fraction", type=float, default=0.0)
    args = parser.parse_args()
    os.makedirs(args.output_dir, exist_ok=True)
    hparams = hparams_registry.default_hparams(args.algorithm, args.dataset)
    if args.hparams:
        hparams.update(json.loads(args.hparams))
    torch.manual_seed(0)
    if args.dataset not in vars(datasets):
        raise NotImplementedError
    dataset = vars(datasets)[args.dataset](args.data_dir, args.test_envs, hparams)
    loaders = [
        InfiniteDataLoader(env, None, hparams["batch_size"], 0)
        for number, env in enumerate(dataset)
        if number not in args.test_envs
    ]
    algorithm = algorithms.get_algorithm_class(args.algorithm)(
        dataset.input_shape, dataset.num_classes, len(dataset) - len(args.test_envs), hparams
    )
    batches = zip(*loaders)
    for step in range(args.steps):
        print(json.dumps(algorithm.update(next(batches))))
