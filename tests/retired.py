"""Hyperparameters of version 0.1 that are no more, as their users had them."""

from __future__ import annotations

#: name -> (a value that did something, what is said instead); written out, so that the table is held to it
GONE = {
    "cim_composites": (True, "our study found little or no gain in it; leave it out"),
    "cim_sparsity": (0.1, "our study found little or no gain in it; leave it out"),
    "cim_mask": ("per_channel", "leave it out, or give InputMorphing a network of your own"),
    "cim_floor": ("exact", "leave it out, or give MSSSIM a floor"),
    "cim_similarity": ("pytorch_msssim", "take ms_ssim, which gives the library's numbers at any size"),
}

#: what every run of CIM then had in its files, unless somebody asked for something else
HARMLESS = {"cim_composites": False, "cim_sparsity": 0.0, "cim_mask": "shared", "cim_floor": "smooth"}

#: those whose flags are answered whatever their value is
FLAGS_GONE = tuple(HARMLESS)


def said(name: str) -> str:
    """What the one line says of the value in :data:`GONE`."""
    value, instead = GONE[name]
    return f"{name}={value!r} is no more, since version 0.2: {instead}"


def said_of_flag(name: str) -> str:
    return f"--{name} is no more, since version 0.2: {GONE[name][1]}"
