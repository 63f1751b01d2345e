"""A backbone: a plain torch module with the channels and strides of its feature maps as attributes."""

from torch import Tensor, nn

from tldet.registry import BACKBONES


@BACKBONES.register_module()
class TinyNet(nn.Module):
    """A small convolutional network.

    Args:
        width: channels at stride 4; they double with each further stage.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.channels = (width, 2 * width, 4 * width, 8 * width)
        self.strides = (4, 8, 16, 32)
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        widths = (width, *self.channels)
        self.stages = nn.ModuleList(_stage(before, after) for before, after in zip(widths, self.channels, strict=False))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute one feature map per stride."""
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


def _stage(before: int, after: int) -> nn.Sequential:
    down = [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*down, nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
