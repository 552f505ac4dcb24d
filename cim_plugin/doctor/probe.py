"""``python -m cim_plugin.doctor.probe``: imports torch and torchvision and says, a JSON object per line, how far that
goes.
"""

import json
import sys


def _say(**facts):
    print(json.dumps(facts), flush=True)


def main():
    import torch

    _say(
        torch=torch.__version__,
        built_for=f"CUDA {torch.version.cuda}"
        if torch.version.cuda
        else f"ROCm {torch.version.hip}"
        if torch.version.hip
        else None,
    )
    _say(
        gpus=[torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
    import torchvision

    _say(torchvision=torchvision.__version__)
    kept = torchvision.ops.nms(
        torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5
    )  # a compiled operator of torchvision
    _say(nms=kept.tolist() == [0])
    from .weights import TORCHVISION

    _say(
        files={
            name: torchvision.models.get_model_weights(name).IMAGENET1K_V1.url.rpartition("/")[2]
            for name in TORCHVISION
        }
    )
    _say(done=True)


if __name__ == "__main__":
    sys.exit(main())
