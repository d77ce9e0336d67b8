"""The methods as the papers print them: a few lines each, dense vectors, node after node.

Each is a generator over rounds that takes C(x, round, node) and gradients (rounds, nodes, d), and yields the
estimate of the mean and the nodes' memories (None where there are none). The sums follow the library's order,
weights first and nodes ascending, so that results can be compared bit for bit.
"""

import torch

from laconic.kernels import Stream
from laconic.layout import Layout


def segmentwise(compressor, layout_or_like, seed):
    """C(x, round, node): each segment compressed on its own, with draws of its own, or left as it is."""
    layout = Layout.like(layout_or_like)

    def C(x, round, node):
        out = x.clone()
        for s in layout.segments:
            if s.rule == "compress":
                draw = Stream(seed, round, node, s.number)
                out[s.offset : s.end] = compressor.compress(x[s.offset : s.end], draw).dense()
        return out

    return C


def add_mean(total, vectors):
    for v in vectors:
        total = total + v * (1.0 / len(vectors))
    return total


def mean_of(vectors):
    return add_mean(torch.zeros_like(vectors[0]), vectors)


def dcgd(C, gradients):
    """x <- x - gamma mean C(g_i)."""
    for t, g in enumerate(gradients):
        yield mean_of([C(g[i], t, i) for i in range(len(g))]), None


def ef14(C, gradients, stepsizes=None, decay=1.0, residual=torch.float32):
    """Algorithm 1 of "On Biased Compression", the memory fading or rounded; without stepsizes all are 1."""
    kept = residual if gradients.dtype == torch.float32 else gradients.dtype
    e = torch.zeros_like(gradients[0], dtype=kept)
    for t, g in enumerate(gradients):
        eta = 1.0 if stepsizes is None else stepsizes[t]
        p = [e[i] + eta * g[i] for i in range(len(g))]
        m = [C(p[i], t, i) for i in range(len(g))]
        e = [(decay * (p[i] - m[i])).to(kept) for i in range(len(g))]
        yield mean_of(m), e


def ef21(C, gradients, init):
    """Algorithm 2 of "EF21": h_i <- h_i + C(g_i - h_i), G <- G + mean C(g_i - h_i)."""
    h = torch.zeros_like(gradients[0])
    G = torch.zeros_like(gradients[0][0])
    for t, g in enumerate(gradients):
        if t > 0 or init == "compressed":
            c = [C(g[i] - h[i], t, i) for i in range(len(g))]
        else:
            c = g if init == "gradient" else torch.zeros_like(g)
        h = [h[i] + c[i] for i in range(len(g))]
        G = add_mean(G, c)
        yield G, h


def ef21_plus(C, gradients, init, layout_or_like):
    """Algorithm 3 of "EF21" (EF21+), in each segment: the better of h_i + C(g_i - h_i) and C(g_i)."""
    h = None
    for t, g in enumerate(gradients):
        nodes = range(len(g))
        if t == 0:
            if init == "compressed":
                h = [C(g[i], 0, i) for i in nodes]
            else:
                h = list(g if init == "gradient" else torch.zeros_like(g))
        else:
            b = [C(g[i], t, i) for i in nodes]
            m = [h[i] + C(g[i] - h[i], t, i) for i in nodes]
            h = [torch.empty_like(g[i]) for i in nodes]
            for s in Layout.like(layout_or_like).segments:
                for i in nodes:
                    goal, B, M = (x[s.offset : s.end] for x in (g[i], b[i], m[i]))
                    h[i][s.offset : s.end] = M if squares(M - goal) <= squares(B - goal) else B
        yield mean_of(h), h


def squares(x):
    return x.double().square().sum()


def econtrol(C, gradients, eta):
    """EControl (arXiv 2311.05645): G <- G + mean m_i, the mean of the h_i."""
    G = torch.zeros_like(gradients[0][0])
    for m, _, h in econtrol_rounds(C, gradients, eta):
        G = add_mean(G, m)
        yield G, h


def econtrol_rounds(C, gradients, eta):
    """m = C(eta e + g - h), e <- e + g - h - m, h <- h + m: these three, round after round."""
    e = h = torch.zeros_like(gradients[0])
    for t, g in enumerate(gradients):
        nodes = range(len(g))
        m = [C(eta * e[i] + g[i] - h[i], t, i) for i in nodes]
        e = [e[i] + (g[i] - h[i]) - m[i] for i in nodes]
        h = [h[i] + m[i] for i in nodes]
        yield m, e, h


def ef21_sgdm(C, gradients, init, eta):
    """EF21 on v_i <- (1 - eta) v_i + eta g_i, v_i starting at the first g_i."""
    v = [gradients[0]]
    for g in gradients[1:]:
        v.append((1.0 - eta) * v[-1] + eta * g)
    yield from ef21(C, v, init)
