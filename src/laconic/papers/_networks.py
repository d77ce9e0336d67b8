"""Small convolutional networks for ten classes, with their parameters as one flat vector."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from laconic.layout import Layout


def _group_norm(channels: int) -> nn.Module:
    """Over groups of channels, so that an image's loss does not depend on the others."""
    return nn.GroupNorm(channels // 4, channels)


def _batch_norm(channels: int) -> nn.Module:
    """Over the batch of a node; in testing, over the test images, so that nothing but parameters is kept."""
    return nn.BatchNorm2d(channels, track_running_stats=False)


def _block(
    inputs: int, outputs: int, stride: int = 1, norm: Callable[[int], nn.Module] = _group_norm
) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), norm(outputs))


class _Beside(nn.Module):
    """The sum of what two modules make of the same images."""

    def __init__(self, inside: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.inside, self.shortcut = inside, shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inside(x) + self.shortcut(x)
        return out


def vgg(width: int = 8) -> nn.Module:
    """Convolutions, pooling, and a linear layer, a small VGG: (N, 3, 32, 32) to (N, 10)."""
    return nn.Sequential(
        _block(3, width, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        _block(width, 2 * width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        _block(2 * width, 4 * width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * width, 10),
    )


def resnet(width: int = 8) -> nn.Module:
    """A stem, two residual blocks, and a linear layer: (N, 3, 32, 32) to (N, 10)."""

    def residual(width: int) -> nn.Module:
        inside = nn.Sequential(_block(width, width), nn.ReLU(), _block(width, width), nn.ReLU())
        return _Beside(inside, nn.Identity())

    return nn.Sequential(
        _block(3, width, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        residual(width),
        _block(width, 2 * width, stride=2),
        nn.ReLU(),
        residual(2 * width),
        nn.Flatten(),
        nn.Linear(32 * width, 10),
    )


def residual_network(width: int) -> nn.Module:
    """Three stages of one basic block each, as ResNet: (N, 3, s, s) to (N, 10), s at least 4.

    It normalises by the batch, and keeps no running statistics.
    """

    def stage(inputs: int, outputs: int, stride: int) -> nn.Module:
        first, second = _block(inputs, outputs, stride, _batch_norm), _block(outputs, outputs, 1, _batch_norm)
        shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        return nn.Sequential(_Beside(nn.Sequential(first, nn.ReLU(), second), shortcut), nn.ReLU())

    return nn.Sequential(
        _block(3, width, 1, _batch_norm),
        nn.ReLU(),
        stage(width, width, 1),
        stage(width, 2 * width, 2),
        stage(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, 10),
    )


def plain_network(width: int, side: int) -> nn.Module:
    """Convolutions without shortcuts and a head that holds most parameters, as VGG.

    (N, 3, side, side) to (N, 10), side at least 8. No normalisation; the start of He et al., as for VGG11.
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


class FlatNetwork:
    """A network whose parameters are one vector x (d,), and its loss and gradients there.

    Args:
        make: makes the network; its initial parameters are drawn from ``seed``.
        seed: of the initial parameters.
    """

    def __init__(self, make: Callable[[], nn.Module], seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module = make()
        shapes = dict(self.module.named_parameters())
        self.layout = Layout.of(shapes)
        self.start = torch.cat([parameter.detach().flatten() for parameter in shapes.values()])

    def _outputs(self, x: Tensor, images: Tensor) -> Tensor:
        pieces = {s.name: x[s.offset : s.end].view(s.shape) for s in self.layout.segments}
        shown: Tensor = torch.func.functional_call(self.module, pieces, (images,))
        return shown

    def gradient(self, x: Tensor, images: Tensor, classes: Tensor) -> Tensor:
        """The gradient of the mean loss, (d,)."""
        x = x.detach().requires_grad_()
        loss = functional.cross_entropy(self._outputs(x, images), classes)
        (found,) = torch.autograd.grad(loss, x)
        return found

    @torch.no_grad()
    def evaluate(self, x: Tensor, images: Tensor, classes: Tensor) -> tuple[float, float]:
        """Mean loss (nats) and the share of images that are classed rightly."""
        outputs = self._outputs(x, images)
        loss = functional.cross_entropy(outputs, classes)
        return float(loss), float((outputs.argmax(dim=-1) == classes).to(torch.float64).mean())
