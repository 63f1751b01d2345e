"""Networks with normalization as after training."""

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def spread() -> Callable[[nn.Module], None]:
    """Gives every BatchNorm of a model statistics, factors and summands as of a trained one, none of them neutral."""

    def spread(model: nn.Module) -> None:
        generator = torch.Generator().manual_seed(1)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
                module.weight.data.uniform_(0.5, 1.0, generator=generator)
                module.bias.data.normal_(0, 0.3, generator=generator)

    return spread
