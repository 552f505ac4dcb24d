"""CIM as a LightningModule.

cim-plugin data demo --root data
python examples/lightning_module.py --root data
"""

from __future__ import annotations

import argparse

import lightning
import torch
from torch.utils.data import DataLoader
from waterbirds import CLASSES, Waterbirds

import cim_plugin


class CIM(lightning.LightningModule):
    """Any algorithm of cim_plugin; the arguments are those of ``cim_plugin.build``."""

    def __init__(self, lr: float = 1e-3, **arguments):
        super().__init__()
        self.save_hyperparameters()
        self.model = cim_plugin.build(**arguments)

    def training_step(self, batch, _):
        images, labels, environments = batch
        loss = self.model.loss(images, labels, environments)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, _):
        images, labels, _ = batch
        right = self.model(images).argmax(1) == labels
        self.log("val_accuracy", right.float().mean(), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.model.parameter_groups(lr=self.hparams.lr, weight_decay=1e-4))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default="data")
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    lightning.seed_everything(0)
    cim = CIM(algorithm="CIM", encoder="small_cnn", class_names=CLASSES, image_size=64, inputs="pixels")
    train, val = (Waterbirds(args.root, split, cim.model.transform) for split in ("train", "val"))
    trainer = lightning.Trainer(
        max_steps=args.steps, accelerator="auto", logger=False, enable_checkpointing=False, log_every_n_steps=1
    )
    trainer.fit(cim, DataLoader(train, batch_size=32, shuffle=True, drop_last=True), DataLoader(val, batch_size=32))
    print({name: round(value.item(), 3) for name, value in trainer.callback_metrics.items()})
