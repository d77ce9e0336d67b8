"""Loading of the images: a part of CIFAR-10."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

IMAGES = "images/cifar10_subset.npz"
"""Path in the data folder."""


@dataclass(frozen=True)
class Images:
    """Images (N, 3, side, side) float32, each channel with mean 0 and variance 1, and classes (N,) int64.

    Mean and variance are those of the images of training. The papers' runs do not shift and scale, but
    theirs are of many epochs.
    """

    train: Tensor
    train_classes: Tensor
    test: Tensor
    test_classes: Tensor


def load_images(path: Path, side: int = 32) -> Images:
    """Read uint8 images (N, 32, 32, 3) and classes (N,), averaged down to ``side``, a divisor of 32."""
    with np.load(path) as file:
        train, test = (_small(torch.from_numpy(file[name]), side) for name in ("x_train", "x_test"))
        classes = [torch.from_numpy(file[name]).to(torch.int64) for name in ("y_train", "y_test")]
    mean, deviation = (f(train, dim=(0, 2, 3), keepdim=True) for f in (torch.mean, torch.std))
    return Images((train - mean) / deviation, classes[0], (test - mean) / deviation, classes[1])


def _small(pixels: Tensor, side: int) -> Tensor:
    x = pixels.permute(0, 3, 1, 2).to(torch.float32).contiguous() / 255.0
    return functional.avg_pool2d(x, x.shape[-1] // side)
