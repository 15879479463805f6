"""The lasso: a price on the size of every weight, lambda * sum |W|, so that those which are not needed go to zero.

Tibshirani, JRSS B 1996. By default as a proximal step after the optimizer's, which makes weights exactly zero (Parikh
and Boyd, "Proximal Algorithms", 2014, sections 4.2 and 6.5.2); or as a term of the gradient, which never quite does.
"""

from typing import Any, Literal

import torch
from torch import nn, optim
from torch.nn import functional

from unlearnable.training.rsr.weights import places

LassoStep = Literal["proximal", "subgradient"]
"""How a step of the lasso is made: weights moved to zero by rate * lambda, and no further, after the optimizer's step;
or lambda * sign(W) added to the gradient before it."""


def add_lasso(optimizer: optim.Optimizer, network: nn.Module, price: float, step: LassoStep) -> None:
    """Have an optimizer make a lasso step with each of its own, on those weights that it trains.

    price: lambda. Neither biases nor batch normalisation nor the strength of noise have one.
    """
    priced = {place.values for place in places(network)}

    @torch.no_grad()
    def shrink(optimizer: optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for weight in priced.intersection(group["params"]):
                weight.copy_(functional.softshrink(weight, group["lr"] * price))

    @torch.no_grad()
    def push(optimizer: optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for weight in priced.intersection(group["params"]):
                if weight.grad is not None:
                    weight.grad.add_(weight.sign(), alpha=price)

    if step == "proximal":
        optimizer.register_step_post_hook(shrink)
    else:
        optimizer.register_step_pre_hook(push)
