"""CBraMod as plain PyTorch modules give it: what the published code runs, layer for layer."""

import torch
from torch import Tensor, nn


class EagerLayer(nn.Module):
    """Two `nn.MultiheadAttention`, one over channels and one over patches, and a feed-forward."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn_s = nn.MultiheadAttention(width // 2, heads // 2, batch_first=True)
        self.self_attn_t = nn.MultiheadAttention(width // 2, heads // 2, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, patches, width = x.shape
        normed = self.norm1(x)
        s = normed[..., : width // 2].transpose(1, 2).reshape(batch * patches, channels, width // 2)
        t = normed[..., width // 2 :].reshape(batch * channels, patches, width // 2)
        s = self.self_attn_s(s, s, s, need_weights=False)[0]
        t = self.self_attn_t(t, t, t, need_weights=False)[0]
        s = s.view(batch, patches, channels, -1).transpose(1, 2)
        x = x + torch.cat([s, t.view(batch, channels, patches, -1)], -1)
        return x + self.linear2(nn.functional.gelu(self.linear1(self.norm2(x))))


class EagerCBraMod(nn.Module):
    """CBraMod at its published sizes under its published keys; x [B, C, P, 200] µV/100 to the same shape."""

    def __init__(self, width: int = 200, layers: int = 12, heads: int = 8, hidden: int = 800) -> None:
        super().__init__()
        maps = width // 8
        embedding = nn.Module()
        embedding.mask_encoding = nn.Parameter(torch.zeros(width))
        embedding.positional_encoding = nn.Sequential(
            nn.Conv2d(width, width, (19, 7), padding=(9, 3), groups=width)
        )
        blocks: list[nn.Module] = []
        for kernel, stride, pad, inputs in ((49, 25, 24, 1), (3, 1, 1, maps), (3, 1, 1, maps)):
            convolution = nn.Conv2d(inputs, maps, (1, kernel), stride=(1, stride), padding=(0, pad))
            blocks += [convolution, nn.GroupNorm(5, maps), nn.GELU()]
        embedding.proj_in = nn.Sequential(*blocks)
        embedding.spectral_proj = nn.Sequential(nn.Linear(101, width))
        self.patch_embedding = embedding
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(EagerLayer(width, heads, hidden) for _ in range(layers))
        self.proj_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, patches, samples = x.shape
        embedding = self.patch_embedding
        maps = embedding.proj_in(x.reshape(batch, 1, channels * patches, samples))
        y = maps.permute(0, 2, 1, 3).reshape(batch, channels, patches, -1)
        y = y + embedding.spectral_proj(torch.fft.rfft(x, dim=-1, norm="forward").abs())
        y = y + embedding.positional_encoding(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        for layer in self.encoder.layers:
            y = layer(y)
        return self.proj_out(y)
