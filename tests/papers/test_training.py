"""The images, networks and training that experiments of both papers share."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import laconic
from laconic.layout import Layout
from laconic.papers import Settings
from laconic.papers._images import IMAGES, Images, load_images
from laconic.papers._networks import FlatNetwork, plain_network, residual_network, resnet, vgg
from laconic.papers._training import Training, TrainingCurve, batches, descend, train_cached

DATA = Path(os.environ["LACONIC_DATA"]) if "LACONIC_DATA" in os.environ else None
needs_data = pytest.mark.skipif(DATA is None, reason="LACONIC_DATA does not name the data folder")
DENSE = laconic.DCGD(laconic.Identity())
NETWORKS = {
    "vgg": (vgg, 32),
    "resnet": (resnet, 32),
    "residual": (lambda: residual_network(4), 8),
    "plain": (lambda: plain_network(4, 8), 8),
}


def some_images(side=8):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 3, side, side, generator=generator)
    y = torch.randint(0, 10, (60,), generator=generator)
    return Images(x[:40], y[:40], x[40:], y[40:])


def training(make=NETWORKS["plain"][0], **arguments):
    settings = {"rounds": 4, "stepsize": 0.05, "nodes": 2, "batch": 10, "evaluated": 1} | arguments
    return Training(some_images(), FlatNetwork(make, seed=3), **settings)


@needs_data
@pytest.mark.parametrize("side", [32, 8])
def test_images_are_standardised(side):
    found = load_images(DATA / IMAGES, side)
    assert found.train.shape[1:] == found.test.shape[1:] == (3, side, side)
    assert len(found.train) == len(found.train_classes)
    assert torch.allclose(found.train.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(found.train.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-4)


def test_smaller_images_are_means_of_squares_of_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    classes = np.arange(4, dtype=np.uint8)
    np.savez(tmp_path / "some.npz", x_train=pixels, y_train=classes, x_test=pixels[:2], y_test=classes[:2])
    found = load_images(tmp_path / "some.npz", side=8)
    means = pixels.reshape(4, 8, 4, 8, 4, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2)
    centre, spread = (f(means, axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.std))
    np.testing.assert_allclose(found.train, (means - centre) / spread, atol=0.01)
    assert found.train_classes.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(found.test, found.train[:2])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_flat_gradient_is_the_networks_own(name):
    make, side = NETWORKS[name]
    network = FlatNetwork(make, seed=3)
    shown, classes = some_images(side).train[:8], torch.arange(8)
    found = network.gradient(network.start, shown, classes)
    loss = functional.cross_entropy(network.module(shown), classes)
    own = torch.autograd.grad(loss, list(network.module.parameters()))
    assert torch.allclose(found, torch.cat([g.flatten() for g in own]), atol=1e-6)
    assert network.evaluate(network.start, shown, classes)[0] == pytest.approx(loss.item(), rel=1e-5)
    assert torch.equal(network.start, FlatNetwork(make, seed=3).start)
    assert not torch.equal(network.start, FlatNetwork(make, seed=4).start)


def test_nodes_own_shares_and_walk_through_them():
    drawn = batches(count=103, nodes=4, batch=5, seed=0)
    epochs = [torch.cat([next(drawn) for _ in range(5)], dim=1) for _ in range(2)]
    assert epochs[0].flatten().unique().numel() == 100
    for first, second in zip(*epochs, strict=True):
        assert set(first.tolist()) == set(second.tolist())
        assert first.tolist() != second.tolist()
    with pytest.raises(ValueError, match="a batch of 26 is more than the 25 rows"):
        next(batches(count=103, nodes=4, batch=26, seed=0))


@pytest.mark.parametrize("name", ["residual", "plain"])
def test_training_without_compression_is_sgd_on_the_mean_gradient(name):
    run = training(NETWORKS[name][0], rounds=6, batch=20)
    course, images, net = run.run(DENSE), run.images, FlatNetwork(NETWORKS[name][0], seed=3).module
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    # A batch of all images of a node, in another order: the same gradient.
    shares = next(batches(40, 2, 20, seed=0))
    for step in range(6):
        optimizer.zero_grad()
        for own in shares:
            (functional.cross_entropy(net(images.train[own]), images.train_classes[own]) / 2).backward()
        optimizer.step()
        with torch.no_grad():
            loss = float(functional.cross_entropy(net(images.train), images.train_classes))
            right = float((net(images.test).argmax(dim=-1) == images.test_classes).double().mean())
        assert course.loss[step + 1] == pytest.approx(loss, rel=1e-4)
        assert course.accuracy[step + 1] == pytest.approx(right, abs=0.051)
    assert course.rounds == list(range(7))
    assert course.bits["values"] == [32 * len(run.network.start) * t for t in range(7)]


def test_one_node_without_compression_is_plain_descent():
    run = training(nodes=1, evaluated=4)
    iterates = [x for (x, _), _ in zip(descend(run.network, run.images, 0.05, 10), range(5), strict=False)]
    loss = run.network.evaluate(iterates[-1], run.images.train, run.images.train_classes)[0]
    assert run.run(DENSE).loss[-1] == pytest.approx(loss, rel=1e-5)


def test_bits_are_those_of_the_messages_and_starts_are_alike():
    d = len(training().network.start)
    whole = Layout.flat(d)
    run, compressor = training(layout=whole, evaluated=2), laconic.TopK(7)
    ef14, ef21 = run.run(laconic.EF14(compressor)), run.run(laconic.EF21(compressor))
    assert ef14.rounds == [0, 2, 4]
    assert ef14.bits["values"] == [0, 2 * 224, 4 * 224]
    # The dense first round is free, as in the papers; but its bytes are bytes.
    assert ef21.bits["values"] == [0, 224, 3 * 224]
    sparse = laconic.TopK(7).compress(torch.ones(d))
    for kind in ("entropy", "wire"):
        size = float(sparse.bits(kind))
        assert ef14.bits[kind][-1] == pytest.approx(4 * size)
        assert ef21.bits[kind][-1] > 3 * size + 32 * d - 1
    assert (ef14.loss[0], ef14.accuracy[0]) == (ef21.loss[0], ef21.accuracy[0])


def test_compressors_see_the_networks_tensors_unless_told_otherwise():
    method = laconic.EF14(laconic.TopK(1))
    tensors = len(training().network.layout.segments)
    assert training(rounds=1).run(method).bits["values"][-1] == 32 * tensors


def test_training_that_diverges_says_so():
    for evaluated in (1, 8):
        course = training(stepsize=1e30, rounds=8, evaluated=evaluated).run(DENSE)
        assert math.isnan(course.loss[-1])
        assert len(course.loss) == len(course.rounds) == len(course.bits["wire"]) < 9
        assert not any(map(math.isnan, course.loss[:-1]))


def test_a_cached_curve_is_read_and_not_made_again(tmp_path, monkeypatch):
    curve = TrainingCurve()
    curve.add(3, math.nan, 0.1, {"values": 1.5, "entropy": 2.0, "wire": 8.0})
    settings, run = Settings(checkpoint=tmp_path), training()
    monkeypatch.setattr(Training, "run", lambda *_: curve)
    first = train_cached(settings, "some", run, DENSE)
    monkeypatch.setattr(Training, "run", lambda *_: pytest.fail("made again"))
    again = train_cached(settings, "some", run, DENSE)
    assert repr(first) == repr(again) == repr(curve)
    assert [path.name for path in tmp_path.iterdir()] == ["some.json"]
    monkeypatch.setattr(Training, "run", lambda *_: curve)
    assert repr(train_cached(Settings(), "other", run, DENSE)) == repr(curve)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_grid_runs_every_pair_in_order_and_reports_progress():
    told = []
    settings = Settings(progress=lambda share, note: told.append((share, note)))
    found = settings.grid([("a", 1), ("b", 2)], ["x", "y"], lambda row, column: row[0] + column)
    assert found == {("a", 1): {"x": "ax", "y": "ay"}, ("b", 2): {"x": "bx", "y": "by"}}
    assert told == [(0.0, "x, a, 1"), (0.25, "y, a, 1"), (0.5, "x, b, 2"), (0.75, "y, b, 2"), (1.0, "done")]
