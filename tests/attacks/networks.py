"""Networks that tests attack: small, and with everything an attack must leave alone."""

import torch
from torch import Tensor, nn


class Linear(nn.Module):
    """A linear classifier, of which everything is known in closed form."""

    def __init__(self, classes: int = 5, shape: tuple[int, ...] = (3, 4, 4), seed: int = 0) -> None:
        super().__init__()
        drawn = torch.randn(classes, torch.Size(shape).numel(), generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(drawn)
        self.passes = 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        return (images - 0.5).flatten(1) @ self.weight.to(images.dtype).T


def convolutional(classes: int = 5) -> nn.Module:
    """Batch normalisation, dropout, a module held in evaluation mode and a parameter held fast."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Conv2d(8, 8, 3, padding=1, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, classes),
        )
        for module in network:
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.1, 0.1)
    with torch.no_grad():  # answers that differ between pictures
        network[-1].bias -= network.eval()(pictures(100)).mean(0)
    network.train()
    network[0].weight.requires_grad_(False)
    network[5].eval()
    return network


def pictures(count: int = 8, size: int = 8, low: float = 0.0, high: float = 1.0) -> Tensor:
    drawn = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(7))
    return low + (high - low) * drawn
