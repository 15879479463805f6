"""A network for use elsewhere: the plain one, without noise, as ONNX."""

from pathlib import Path

import torch
from torch import nn

from unlearnable.training.checkpoint import Network, plain_network


def export_onnx(path: Path, network: nn.Module, about: Network) -> None:
    """Write a network without its noise, for any number of pictures.

    Its input ``images`` is (count, channels, size, size) floats, 0 to 1; its output ``logits`` is (count, classes).
    """
    import onnxscript  # noqa: F401 - PyTorch's own word for its absence names no extra of ours

    plain = plain_network(network, about)
    images = torch.zeros(2, about.channels, about.size, about.size)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        plain,
        (images,),
        path,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("count")},),
        input_names=["images"],
        output_names=["logits"],
        external_data=False,
        verbose=False,
    )
