"""Gradient descent over several processes with an Exchange alone: no DDP, no optimiser.

    torchrun --nproc-per-node 2 examples/exchange_loop.py --steps 200

Every process holds a share of a least-squares problem and works with its full gradient, EF21's own case.
"""

import argparse

import torch
import torch.distributed as dist

import laconic


def main() -> None:
    """Minimise the mean over ranks of ``|A_i x - b_i|^2 / 2 rows``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    generator = torch.Generator().manual_seed(rank)
    rows, d = 400, 200
    A = torch.randn(rows, d, generator=generator)
    b = A @ torch.ones(d) + 0.1 * torch.randn(rows, generator=generator)

    # Each named segment is compressed on its own; here there is one, and 5 % of it travels a step.
    layout = laconic.Layout.of({"x": (d,)})
    exchange = laconic.Exchange(layout, laconic.EF21(laconic.TopK(0.05)))

    x = torch.zeros(d)
    for step in range(options.steps):
        gradient = A.T @ (A @ x - b) / rows
        estimate = {"x": gradient}
        if exchange.reduce_(estimate):  # in place; False where some rank's gradient was not finite
            x = x - 0.1 * estimate["x"]
        if rank == 0 and (step + 1) % 50 == 0:
            print(f"step {step + 1:>4}  loss {((A @ x - b) ** 2).mean() / 2:.4f}")

    if rank == 0 and (stats := exchange.stats()).steps:
        sent = stats.bytes_sent / stats.steps
        print(f"{sent:,.0f} bytes sent a step, {100 * stats.ratio_to_bf16:.1f} % of a bf16 all-reduce")
    exchange.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
