"""Data sets fetched on request, by torchvision, which checks what it fetched."""

from pathlib import Path

from attention_ablation.base.errors import UserError

ARCHIVES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz")


def fetch(name: str, datasets: Path) -> str:
    """Fetch a data set into the folder that has each by its name; return where it is then.

    Args:
        name: one of `study.datasets.DOWNLOADS`. ImageNet's archives have to be there; they are
            unpacked.

    Raises UserError where it cannot be fetched, or an archive is missing or damaged.
    """
    folder = datasets / name.split("-")[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if name == "imagenet":
            _unpack(folder)
        else:
            _download(name, folder)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{folder}: {name} could not be fetched: {error}") from None
    return f"{folder}: {name} is there."


def _download(name: str, folder: Path) -> None:
    from torchvision import datasets

    if name == "cifar10":
        datasets.CIFAR10(folder, download=True)
    elif name == "cifar100":
        datasets.CIFAR100(folder, download=True)
    else:
        size = name.removeprefix("imagenette-")
        datasets.Imagenette(folder, size=size, download=True)


def _unpack(folder: Path) -> None:
    if missing := [name for name in ARCHIVES if not (folder / name).is_file()]:
        raise UserError(
            f"{folder}: expected ImageNet's archives, got no {', '.join(missing)}. They may be "
            "had from image-net.org, by those who agree to its terms; put or link them there."
        )
    from torchvision import datasets

    for split in ("train", "val"):
        datasets.ImageNet(folder, split)
