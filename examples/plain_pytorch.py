"""CIM in a loop of plain PyTorch, with an encoder of one's own.

cim-plugin data demo --root data
python examples/plain_pytorch.py --root data
"""

from __future__ import annotations

import argparse
import itertools

import torch
from torch import nn
from torch.utils.data import DataLoader
from waterbirds import CLASSES, Waterbirds

import cim_plugin

parser = argparse.ArgumentParser()
parser.add_argument("--root", default="data")
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--output", default="model", help="folder that the model is saved in")
args = parser.parse_args()

encoder = nn.Sequential(
    nn.Conv2d(3, 32, 3, stride=2, padding=1),
    nn.ReLU(),
    nn.Conv2d(32, 64, 3, stride=2, padding=1),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
)
torch.manual_seed(0)
model = cim_plugin.build("CIM", encoder=encoder, class_names=CLASSES, image_size=64, inputs="pixels")
optimizer = torch.optim.AdamW(model.parameter_groups(lr=1e-3, weight_decay=1e-4))

train = DataLoader(Waterbirds(args.root, "train", model.transform), batch_size=32, shuffle=True, drop_last=True)
endless = itertools.chain.from_iterable(itertools.repeat(train))
for step, (images, labels, _) in enumerate(itertools.islice(endless, args.steps)):
    loss = model.loss(images, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0 or step == args.steps - 1:
        print(f"step {step}: loss {loss.item():.3f}")

model.eval()
with torch.no_grad():
    batches = DataLoader(Waterbirds(args.root, "val", model.transform), batch_size=32)
    right = [(model(images).argmax(1) == labels) for images, labels, _ in batches]
print(f"accuracy on validation data: {torch.cat(right).float().mean():.2f}")
model.save_pretrained(args.output)
print(f"the model is in {args.output}; load it with cim_plugin.load({args.output!r}, encoder=...)")
