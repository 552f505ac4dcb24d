"""The method: tensors in, losses out. Imports numpy and torch only; imported as ``cim_plugin.algorithms``."""
