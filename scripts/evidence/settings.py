"""What all rows have in common, and what is searched."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_SEED = 0  #: of those that tables report
SEARCH_SEED = 100  #: of the search, outside of those
#: what is searched, in this order; the first where nothing is
RATES = (1e-4, 3e-4)
RULE = "worst_pseudo_group"  #: by which a learning rate and the epochs of the headline are chosen, without groups
#: of cim-plugin train; decoded images come from the cache, which all runs share
COMMON = (
    "--model mobilenetv2_100 --model_kwargs pad_type=same pretrained=true --freeze_bn --transform image_base "
    "--optimizer AdamW --weight_decay 1e-4 --batch_size 32 --loader_kwargs num_workers=0 --cache true "
    "--progress_bar false --resume"
)


@dataclass(frozen=True)
class Settings:
    """Of a table."""

    root_dir: str  #: holds waterbirds_v1.0
    weights: str  #: a state dict of the model, pretrained on ImageNet
    n_epochs: int = 3
    side: int = 80  #: height and width in pixels that images are resized to
    cross_fit: str = "80"  #: steps of the reference models
    references: str = ""  #: name of other settings, whose reference models serve these runs, too

    @property
    def name(self) -> str:
        """Of the folder of their runs."""
        return f"{self.side}px_{self.n_epochs}epochs"

    @property
    def flags(self) -> list[str]:
        """Of cim-plugin train, but for data and algorithm."""
        return [
            *COMMON.split(),
            *("--pretrained_model_path", self.weights),
            *("--target_resolution", str(self.side), str(self.side)),
            *("--n_epochs", str(self.n_epochs)),
        ]
