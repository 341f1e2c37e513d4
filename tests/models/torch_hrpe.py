"""HRPE in PyTorch, written from its description, with the module names of the published checkpoints.

It stands in for the published program where that is absent: comparisons and benchmarks load it by path.
"""

from __future__ import annotations

import torch
from torch import nn


def _conv(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=bias)


def _shuffle(x: torch.Tensor) -> torch.Tensor:
    batch, channels, height, width = x.shape
    return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, outputs: int):
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, outputs, 1), nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential(_conv(inputs, outputs, 1), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ShuffleUnit(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.branch2 = nn.Sequential(
            _conv(half, half, 1), nn.BatchNorm2d(half), nn.ReLU(),
            _conv(half, half, 3, groups=half), nn.BatchNorm2d(half),
            _conv(half, half, 1), nn.BatchNorm2d(half), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, y = x.chunk(2, dim=1)
        return _shuffle(torch.cat([kept, self.branch2(y)], dim=1))


class Excitation(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        inner = channels // 4
        self.fc = nn.Sequential(_conv(channels, inner, 1), nn.ReLU(), _conv(inner, channels, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.fc(x.mean(dim=(2, 3), keepdim=True))


class ChannelWeighting(nn.Module):
    def __init__(self, channels: int, refine: bool):
        super().__init__()
        half = channels // 2
        self.depthwise_convs, self.bn = _conv(half, half, 3, groups=half), nn.BatchNorm2d(half)
        self.spatial_weighting = nn.ModuleList([Excitation(half)])
        if refine:
            self.local_attention = _conv(half, half, 3, groups=half)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, y = x.chunk(2, dim=1)
        y = self.spatial_weighting[0](self.bn(self.depthwise_convs(y)))
        if hasattr(self, "local_attention"):
            y = self.local_attention(y)
        return _shuffle(torch.cat([kept, y], dim=1))


class Stage(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        units = (ChannelWeighting(channels, False), ChannelWeighting(channels, True), ShuffleUnit(channels))
        self.branches = nn.ModuleList([nn.Sequential(*units)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.branches[0](x)
        return torch.relu(y + y)  # the published fusion adds the only branch to itself


class TorchHRPE(nn.Module):
    """[B, C, H, W] to [B, H / 4, W / 4]."""

    def __init__(self, channels: int = 3):
        super().__init__()
        self.conv1, self.bn1 = _conv(channels, 64, 3, stride=2), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = _conv(64, 64, 3, stride=2), nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(Bottleneck(64, 64, 256), *(ShuffleUnit(256) for _ in range(3)))
        self.transition1 = nn.ModuleList([nn.Sequential(_conv(256, 32, 3), nn.BatchNorm2d(32), nn.ReLU())])
        self.stage2 = Stage(32)
        self.stage4 = nn.Sequential(Stage(32))
        self.final_layer = _conv(32, 1, 1, bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        x = self.transition1[0](self.layer1(x))
        return self.final_layer(self.stage4(self.stage2(x)))[:, 0]
