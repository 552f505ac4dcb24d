"""The method: tensors in, losses out. Imports torch and pytorch_msssim only; imported as ``cim_plugin.algorithms``."""
