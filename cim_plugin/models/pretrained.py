"""Models as one file that holds weights and recipe, in a folder or on the Hugging Face Hub."""

from __future__ import annotations

import json
import os
import tempfile
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import InputError, first_line
from ..files import Unreadable, parse_json, write_whole
from .recipe import Recipe, from_dict

if TYPE_CHECKING:
    from .model import Model

SUFFIX = ".safetensors"
WEIGHTS = f"model{SUFFIX}"
KEY = "cim_plugin"  #: of the file's metadata: the recipe as JSON
CARD = """---
library_name: cim_plugin
tags: [image-classification, cim_plugin]
---
{what}. Classes: {classes}.

```python
import cim_plugin
from PIL import Image

model = cim_plugin.load("{place}")
images = model.transform(Image.open("photo.jpg"))[None]
print(model.class_names[model(images).argmax()])
```
"""


def as_bytes(model: Model) -> bytes:
    """A safetensors file of the weights, as the classifier names them, with the recipe in its metadata.

    Raises:
        InputError: safetensors is not installed.
    """
    save = _safetensors().torch.save
    weights = {name: value.detach().cpu().contiguous() for name, value in model.classifier.state_dict().items()}
    return save(weights, {"format": "pt", KEY: json.dumps(model.recipe.as_dict())})


def read(file: str) -> tuple[Recipe, dict[str, Tensor]]:
    """What :func:`as_bytes` gave; the format holds nothing that could be executed.

    Raises:
        InputError: safetensors is not installed, or the file is damaged or holds no recipe.
    """
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(file, "pt") as opened:
            text = (opened.metadata() or {}).get(KEY)
            weights = {name: opened.get_tensor(name) for name in opened.keys()}
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{file} is not a whole safetensors file ({error})") from error
    if text is None:
        raise InputError(f"{file} holds weights, and no recipe of cim_plugin: it is not a model of save_pretrained")
    try:
        return from_dict(parse_json(text, file), file), weights
    except Unreadable as error:
        raise InputError(str(error)) from error


def save(model: Model, folder: str | os.PathLike, place: str | None = None) -> None:
    """The files of a model; see :meth:`.model.Model.save_pretrained`."""
    content = as_bytes(model)
    config = json.dumps({"library_name": KEY, **model.recipe.as_dict()}, indent=2)
    what = model.extra_repr().replace("\n", " ")
    card = CARD.format(what=what, classes=", ".join(model.class_names[:20]), place=place or os.fspath(folder))
    write_whole(os.path.join(folder, WEIGHTS), content)
    write_whole(os.path.join(folder, "config.json"), config.encode())
    write_whole(os.path.join(folder, "README.md"), card.encode())


def push(model: Model, repository: str, private: bool | None = None, **options: Any) -> str:
    """Into a repository of the Hub; see :meth:`.model.Model.push_to_hub`."""
    hub = _hub()
    interface = hub.HfApi(token=options.get("token"))
    with tempfile.TemporaryDirectory() as folder:
        save(model, folder, f"hf://{repository}")
        try:
            interface.create_repo(repository, private=private, exist_ok=True)
            return interface.upload_folder(repo_id=repository, folder_path=folder, **options).commit_url
        except (OSError, ValueError) as error:  # the Hub's refusals are OSErrors, a name that is none a ValueError
            raise InputError(f"{repository} cannot be written on the Hugging Face Hub ({first_line(error)})") from error


def pull(repository: str) -> str:
    """The file of a model on the Hub, in its cache.

    Raises:
        InputError: huggingface_hub is not installed, or the file cannot be had.
    """
    try:
        return _hub().hf_hub_download(repository, WEIGHTS)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{WEIGHTS} of {repository} cannot be had from the Hugging Face Hub ({first_line(error)})"
        ) from error


def _safetensors():
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise InputError("safetensors is not installed; pip install safetensors") from error
    return safetensors


def _hub():
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError("huggingface_hub is not installed; pip install huggingface_hub") from error
    return huggingface_hub
