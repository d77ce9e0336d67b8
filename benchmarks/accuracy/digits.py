"""Task of the accuracy study: a perceptron on scikit-learn's images of handwritten digits, 8 x 8 pixels."""

from functools import cache

import torch
from sklearn.datasets import load_digits
from stages import Spec
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10
Batch = tuple[Tensor, Tensor]


@cache
def images() -> tuple[Batch, Batch]:
    """Training images (1,437, 64) between 0 and 1 with their digits, and those held out, every fifth."""
    pixels, digits = load_digits(return_X_y=True)
    x, y = torch.from_numpy(pixels).float() / 16, torch.from_numpy(digits).long()
    held = torch.arange(len(x)) % 5 == 0
    return (x[~held], y[~held]), (x[held], y[held])


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy, nats an image."""
    return functional.cross_entropy(model(batch[0]), batch[1])


class Task:
    """Model, batches and losses of a run; a batch of 0 is a node's whole share of the images."""

    def __init__(self, spec: Spec) -> None:
        """The first weights follow from PyTorch's seed, the batches from the run's."""
        width = spec.width
        layers = nn.Linear(64, width, bias=False), nn.Linear(width, width, bias=False)
        self.model = nn.Sequential(
            layers[0], nn.ReLU(), layers[1], nn.ReLU(), nn.Linear(width, CLASSES, bias=False)
        )
        self._batch, self._nodes = spec.batch, spec.nodes
        self._generator = torch.Generator().manual_seed(1000 + spec.seed)

    def data(self, _step: int, node: int) -> Batch:
        """The next batch of a node: of all images, or its share."""
        x, y = images()[0]
        if self._batch == 0:
            return x[node :: self._nodes], y[node :: self._nodes]
        chosen = torch.randint(len(x), (self._batch,), generator=self._generator)
        return x[chosen], y[chosen]

    loss = staticmethod(loss_of)

    @torch.no_grad()
    def validation(self) -> float:
        """Loss on the images held out."""
        return float(loss_of(self.model, images()[1]))

    @torch.no_grad()
    def whole_training_loss(self) -> float:
        """Loss on all training images: what the methods minimise."""
        return float(loss_of(self.model, images()[0]))
