"""CIM with an encoder of timm, and pairs across the places: a bird on land with one of its kind on water.

cim-plugin data demo --root data
python examples/timm_encoder.py --root data
"""

from __future__ import annotations

import argparse
import itertools

import timm
import torch
from torch.utils.data import DataLoader
from waterbirds import CLASSES, Waterbirds

import cim_plugin

parser = argparse.ArgumentParser()
parser.add_argument("--root", default="data")
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--encoder", default="resnet18", help="any model of timm")
parser.add_argument("--pretrained", action="store_true", help="start from weights that timm fetches")
args = parser.parse_args()

torch.manual_seed(0)
encoder = timm.create_model(args.encoder, pretrained=args.pretrained, num_classes=0)
data = timm.data.resolve_model_data_config(encoder)
model = cim_plugin.build(
    "CIM",
    encoder=encoder,
    class_names=CLASSES,
    image_size=64,
    inputs=(data["mean"], data["std"]),
    cim_pairs="cross_environment",
)
optimizer = torch.optim.AdamW(model.parameter_groups(lr=1e-4, weight_decay=1e-2))

train = DataLoader(Waterbirds(args.root, "train", model.transform), batch_size=32, shuffle=True, drop_last=True)
endless = itertools.chain.from_iterable(itertools.repeat(train))
for step, (images, labels, places) in enumerate(itertools.islice(endless, args.steps)):
    loss = model.loss(images, labels, environments=places)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0 or step == args.steps - 1:
        print(f"step {step}: loss {loss.item():.3f}, mean of m {model.morph(images).m.mean().item():.3f}")
