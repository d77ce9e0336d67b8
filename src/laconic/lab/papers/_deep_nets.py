"""Two small networks, one like ResNet and one like VGG, and the images that they are trained on."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


def _norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, track_running_stats=False)


class _Block(nn.Module):
    """Two convolutions beside a shortcut, as in ResNet's basic block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(_norm(outputs) for _ in range(2))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inside = functional.relu(self.norms[0](self.first(x)))
        out: Tensor = functional.relu(self.norms[1](self.second(inside)) + self.shortcut(x))
        return out


def residual_network(width: int) -> nn.Module:
    """A residual network of three stages, one basic block each: (N, 3, s, s) to (N, 10), s at least 4.

    Each node normalises by its own batch, and no running statistics are kept: testing takes those of the
    test images, so that a network is its parameters and nothing else.
    """
    stages = [_Block(width, width, 1), _Block(width, 2 * width, 2), _Block(2 * width, 4 * width, 2)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10)]
    return nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), _norm(width), nn.ReLU(), *stages, *head)


def plain_network(width: int, side: int) -> nn.Module:
    """Convolutions without shortcuts and a head that holds most parameters, as VGG.

    (N, 3, s, s) to (N, 10), s at least 8. No normalisation, and the start of He et al., as for VGG11.
    """
    layers: list[nn.Module] = []
    inputs = 3
    for outputs in (width, 2 * width, 4 * width):
        layers += [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2)]
        inputs = outputs
    flat = inputs * (side // 8) ** 2
    hidden = 16 * width
    layers += [nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(hidden, 10))
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net


@dataclass(frozen=True)
class Images:
    """Images as float32, (N, 3, side, side), with labels (N,); those of training split over nodes.

    Every channel is shifted and scaled to mean 0 and variance 1 over the images of training. The papers'
    runs do not do so, but theirs are of many epochs.

    Args:
        x, y: for training, one tensor a node.
        x_test, y_test: for testing.
    """

    x: tuple[Tensor, ...]
    y: tuple[Tensor, ...]
    x_test: Tensor
    y_test: Tensor

    @classmethod
    def load(cls, path: str, nodes: int, side: int, tested: int) -> "Images":
        """Read uint8 images (N, 32, 32, 3), average them down to ``side``, deal them out at random."""
        with np.load(path) as file:
            parts = {
                name: torch.from_numpy(file[name]) for name in ("x_train", "y_train", "x_test", "y_test")
            }
        order = torch.from_numpy(np.random.default_rng(0).permutation(len(parts["y_train"])))
        x, y = _small(parts["x_train"], side)[order], parts["y_train"].long()[order]
        x_test, y_test = _small(parts["x_test"][:tested], side), parts["y_test"][:tested].long()
        centre, spread = (f(x, dim=(0, 2, 3), keepdim=True) for f in (torch.mean, torch.std))
        x, x_test = (x - centre) / spread, (x_test - centre) / spread
        return cls(x.chunk(nodes), y.chunk(nodes), x_test, y_test)


def _small(images: Tensor, side: int) -> Tensor:
    x = images.permute(0, 3, 1, 2).to(torch.float32) / 255
    return functional.avg_pool2d(x, x.shape[-1] // side)
