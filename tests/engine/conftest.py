"""The tiny run that the engine's tests share."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """``toy_run.py`` as a module."""
    spec = importlib.util.spec_from_file_location("toy_run", Path(__file__).with_name("toy_run.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy_run"] = module
    spec.loader.exec_module(module)
    return module


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
