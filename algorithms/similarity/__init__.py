"""How alike two images are: what L_con compares psi(x) with its positive and its negative by."""

from .base import Similarity
from .colours import Colours
from .fused import MSSSIM

#: name that a user gives -> what makes it for images of a size
SIMILARITIES: dict[str, type[Similarity]] = {"ms_ssim": MSSSIM, "colours": Colours}
