"""A PyTorch MSHNet with the published layer names, written from the paper for comparison in tests."""

import torch
from torch import nn
from torch.nn import functional as F


class ChannelGate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, max(channels // 16, 1), 1, bias=False)
        self.fc2 = nn.Conv2d(max(channels // 16, 1), channels, 1, bias=False)

    def forward(self, x):
        pooled = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return torch.sigmoid(sum(self.fc2(F.relu(self.fc1(value))) for value in pooled))


class SpatialGate(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x):
        return torch.sigmoid(self.conv1(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)
        self.shortcut = None
        if inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs))
        self.ca, self.sa = ChannelGate(outputs), SpatialGate()

    def forward(self, x):
        kept = x if self.shortcut is None else self.shortcut(x)
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        y = y * self.ca(y)
        return F.relu(y * self.sa(y) + kept)


def stage(inputs, outputs, depth):
    return nn.Sequential(*(Block(inputs if i == 0 else outputs, outputs) for i in range(depth)))


def up(x, factor):
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=True)


class TorchMSHNet(nn.Module):
    widths, depths = (16, 32, 64, 128, 256), (1, 2, 2, 2, 2)

    def __init__(self, channels=3):
        super().__init__()
        widths, depths, self.scales = self.widths, self.depths, len(self.widths) - 1
        self.conv_init = nn.Conv2d(channels, widths[0], 1)
        for i in range(self.scales):
            setattr(self, f"encoder_{i}", stage(widths[max(i - 1, 0)], widths[i], depths[i]))
            setattr(self, f"decoder_{i}", stage(widths[i] + widths[i + 1], widths[i], depths[i]))
            setattr(self, f"output_{i}", nn.Conv2d(widths[i], 1, 1))
        self.middle_layer = stage(widths[-2], widths[-1], depths[-1])
        self.final = nn.Conv2d(self.scales, 1, 3, padding=1)

    def forward(self, x):
        """Logits [B, 1, H, W] and those of the scales."""
        x, kept = self.conv_init(x), []
        for i in range(self.scales):
            x = getattr(self, f"encoder_{i}")(x)
            kept.append(x)
            x = F.max_pool2d(x, 2)
        x, sides = self.middle_layer(x), [None] * self.scales
        for i in reversed(range(self.scales)):
            x = getattr(self, f"decoder_{i}")(torch.cat([kept[i], up(x, 2)], 1))
            sides[i] = getattr(self, f"output_{i}")(x)
        joined = torch.cat([side if i == 0 else up(side, 2**i) for i, side in enumerate(sides)], 1)
        return self.final(joined), sides


class OneScale(TorchMSHNet):
    widths, depths = (4, 8), (1, 1)
