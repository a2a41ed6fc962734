"""CBraMod: features of every second of every EEG channel.

Wang et al., *CBraMod: A Criss-Cross Brain Foundation Model for EEG Decoding*, ICLR 2025 (arXiv 2412.07236);
parameter names are those of the published weights. Half of each feature vector attends over the channels of
its second, the other half over the seconds of its channel.

What differs from the published code is how it is computed, not what: convolutions within a patch are products
with banded matrices, and the spectrum is one with a Fourier matrix, so that nearly all work is large matrix
products.
"""

import math
from collections.abc import Callable, Hashable, MutableMapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from bioreport_kernels import aggregate_epochs
from bioreport_kernels.reference import accumulation_dtype

PATCH_SAMPLES = 200
POSITIONS = 8  # outputs of the strided first convolution in a patch
GROUPS = 5
# Epochs at a time on a CPU when no gradient is needed. More overflow the caches and the sizes that the
# allocator keeps; fewer leave threads that encode side by side waiting for Python's lock.
EPOCHS_AT_ONCE = 16
# exp of it is 0 in every dtype, and it is finite in every dtype, so a wholly masked row does not become NaN.
MASKED_SCORE = -30000.0
# Scores, in powers of two, within which no sum of weights over- or underflows, except in float16.
BOUNDED_BITS = 60.0
# what oneDNN multiplies by the call that torch.compile makes of a linear layer on a CPU
ONEDNN_DTYPES: tuple[torch.dtype, ...] = ()
if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    ONEDNN_DTYPES = (torch.float32,)
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        ONEDNN_DTYPES += (torch.bfloat16,)
_Kept = dict[Hashable, tuple[tuple[int, torch.device], Tensor]]
_DERIVED: MutableMapping[Tensor, _Kept] = WeakTensorKeyDictionary()


def linear(rows: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False) -> Tensor:
    """rows [N, in] weightᵀ + bias in the dtype of the rows, through GELU where it is asked for.

    On a CPU by oneDNN: PyTorch gives plain products in float32 to MKL, which runs at half of oneDNN's speed
    where the processor is not Intel's. Without gradients as oneDNN's own product, which applies GELU before
    it writes; with gradients as a 1 × 1 convolution, which PyTorch gives to oneDNN from a batch of 16 images
    on whatever the number of threads.
    """
    if rows.dtype != weight.dtype and not torch.is_autocast_enabled(rows.device.type):
        dtype = rows.dtype
        weight, bias = (_derived(x, dtype, lambda x: x.to(dtype)) for x in (weight, bias))
    if rows.device.type != "cpu" or not len(rows) or torch.is_autocast_enabled("cpu"):
        out = F.linear(rows, weight, bias)
    elif not torch.is_grad_enabled() and rows.dtype in ONEDNN_DTYPES:
        product = torch.ops.mkldnn._linear_pointwise
        return product(rows, weight, bias, "gelu" if gelu else "none", [], "none" if gelu else "")
    elif len(rows) % 16 or rows.dtype != torch.float32:
        out = F.linear(rows, weight, bias)
    else:
        image = rows.reshape(16, -1, 1, rows.shape[1]).permute(0, 3, 1, 2)
        out = F.conv2d(image, weight[:, :, None, None], bias).permute(0, 2, 3, 1).reshape(len(rows), -1)
    return F.gelu(out) if gelu else out


def _derived(parameter: Tensor, name: Hashable, make: Callable[[Tensor], Tensor]) -> Tensor:
    """What is made of a parameter, kept under a name for the next call where nothing is learnt."""
    if (parameter.requires_grad and torch.is_grad_enabled()) or parameter.is_inference():
        return make(parameter)
    kept = _DERIVED.setdefault(parameter, {})
    # the device too: moving a module leaves the version as it was
    state = parameter._version, parameter.device
    if name not in kept or kept[name][0] != state:
        with torch.inference_mode(False), torch.no_grad():
            kept[name] = state, make(parameter)
    return kept[name][1]


class CrissCrossAttention(nn.Module):
    """Multi-head self-attention along one axis, under `nn.MultiheadAttention`'s key names.

    Parameters
    ----------
    dim, heads : int
    axis : {1, 2}
        1 attends over the channels of a patch, 2 over the patches of a channel.
    """

    def __init__(self, dim: int, heads: int, axis: int) -> None:
        super().__init__()
        self.heads, self.axis = heads, axis
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, rows: Tensor, shape: torch.Size, bias: Tensor | None) -> Tensor:
        """Attend among rows [B * C * P, dim] of a batch of `shape` [B, C, P].

        bias [B * (P or C) * heads, C or P, 1] is added to the scores of each key: 0, or `MASKED_SCORE`.
        """
        qkv = linear(rows, self.in_proj_weight, self.in_proj_bias).view(*shape, 3, self.heads, -1)
        # [3, B, rest, heads, length, dim / heads]
        order = (3, 0, 2, 4, 1, 5) if self.axis == 1 else (3, 0, 1, 4, 2, 5)
        q, k, v = qkv.permute(order).flatten(1, 3).unbind(0)
        out = _attend(q, k, v, bias).view(shape[0], shape[3 - self.axis], self.heads, shape[self.axis], -1)
        out = out.permute((0, 3, 1, 2, 4) if self.axis == 1 else (0, 1, 3, 2, 4))
        return linear(out.reshape(len(rows), -1), self.out_proj.weight, self.out_proj.bias)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax attention of q, k, v [N, length, dim]; bias [N, length, 1] as in `CrissCrossAttention`."""
    # Keys before queries: a softmax across rows is vectorised, one within rows of 10 or 22 is not.
    scale = q.shape[2] ** -0.5
    wide = q.dtype != torch.float16
    if wide and q.device.type == "cpu" and q.numel() and not torch.is_grad_enabled():
        # PyTorch's exp2 takes a quarter of the time of exp, and the largest score of each row, which softmax
        # wants for its own safety, as long as all else of it.
        bits = torch.bmm(k * (scale / math.log(2)), q.transpose(1, 2))
        low, high = torch.aminmax(bits)
        if bool((low >= -BOUNDED_BITS) & (high <= BOUNDED_BITS)):
            weights = bits.exp2_()
            if bias is not None:
                weights.mul_(bias == 0)
            # a wholly masked row gives zeros, not NaN; its result is not used
            total = weights.sum(1, dtype=accumulation_dtype(q.dtype)).clamp_(min=2**-BOUNDED_BITS)
            return torch.bmm(weights.transpose(1, 2), v).mul_(total.reciprocal_().unsqueeze(2))
    if bias is None:
        scores = torch.bmm(k * scale, q.transpose(1, 2))
    else:
        scores = torch.baddbmm(bias.to(k.dtype), k, q.transpose(1, 2), alpha=scale)
    weights = scores.softmax(1, dtype=accumulation_dtype(scores.dtype)).to(v.dtype)
    return torch.bmm(weights.transpose(1, 2), v)


class CrissCrossLayer(nn.Module):
    """Pre-norm transformer layer: channels and patches side by side, then the feed-forward.

    products is the dtype that matrices are multiplied in; None is that of the rows.
    """

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int) -> None:
        super().__init__()
        self.products: torch.dtype | None = None
        self.self_attn_s = CrissCrossAttention(d_model // 2, nhead // 2, axis=1)
        self.self_attn_t = CrissCrossAttention(d_model // 2, nhead // 2, axis=2)
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)

    def forward(
        self, rows: Tensor, shape: torch.Size, channel_bias: Tensor | None, patch_bias: Tensor | None
    ) -> Tensor:
        """rows [B * C * P, d_model]; the biases are what `CrissCrossAttention` takes along each axis."""
        rows, hidden = self.expand(rows, shape, channel_bias, patch_bias)
        added = linear(hidden, self.linear2.weight, self.linear2.bias)
        return rows + added.to(rows.dtype) if torch.is_grad_enabled() else rows.add_(added)

    def expand(
        self, rows: Tensor, shape: torch.Size, channel_bias: Tensor | None, patch_bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What the second linear map of the feed-forward adds to, and what it maps."""
        dtype = self.products or rows.dtype
        over_channels, over_patches = self.norm1(rows).to(dtype).chunk(2, 1)
        attended = torch.cat(
            [
                self.self_attn_s(over_channels, shape, channel_bias),
                self.self_attn_t(over_patches, shape, patch_bias),
            ],
            1,
        )
        rows = rows + attended.to(rows.dtype)
        hidden = linear(self.norm2(rows).to(dtype), self.linear1.weight, self.linear1.bias, gelu=True)
        return rows, hidden


class PatchEmbedding(nn.Module):
    """A patch's waveform, its spectrum and its place on the head and in time, added up."""

    def __init__(self, d_model: int, conv_channels: int) -> None:
        super().__init__()
        self.d_model, self.conv_channels = d_model, conv_channels
        # trained for masked reconstruction, unused in encoding; published with the weights
        self.mask_encoding = nn.Parameter(torch.zeros(d_model), requires_grad=False)
        self.positional_encoding = nn.Sequential(
            nn.Conv2d(d_model, d_model, (19, 7), padding=(9, 3), groups=d_model)
        )
        self.proj_in = nn.Sequential(
            nn.Conv2d(1, conv_channels, (1, 49), stride=(1, 25), padding=(0, 24)),
            nn.GroupNorm(GROUPS, conv_channels),
            nn.GELU(),
            nn.Conv2d(conv_channels, conv_channels, (1, 3), padding=(0, 1)),
            nn.GroupNorm(GROUPS, conv_channels),
            nn.GELU(),
            nn.Conv2d(conv_channels, conv_channels, (1, 3), padding=(0, 1)),
            nn.GroupNorm(GROUPS, conv_channels),
            nn.GELU(),
        )
        self.spectral_proj = nn.Sequential(nn.Linear(PATCH_SAMPLES // 2 + 1, d_model))
        self.register_buffer("_fourier", _fourier_matrix(), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Embed x [B, C, P, 200], waveform and spectrum; mask [B, C, P] keeps the norms free of the rest."""
        rows = x.reshape(-1, PATCH_SAMPLES)
        y = rows
        for index, stride in ((0, 25), (3, 1), (6, 1)):
            conv, norm = self.proj_in[index], self.proj_in[index + 1]
            assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.GroupNorm)
            length = y.shape[-1] // conv.in_channels
            y = linear(y, *_banded(conv, length, stride)).view(*x.shape[:3], self.d_model)
            y = F.gelu(_group_norm(y, norm, mask)).flatten(0, 2)
        spectral = self.spectral_proj[0]
        assert isinstance(spectral, nn.Linear)
        y = y + linear(self._amplitudes(rows), spectral.weight, spectral.bias)
        return y.view(*x.shape[:3], self.d_model)

    def add_place(self, x: Tensor) -> Tensor:
        """Add what the depthwise convolution over channels and patches says of the neighbourhood."""
        return x + self.positional_encoding(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def _amplitudes(self, x: Tensor) -> Tensor:
        fourier = self._fourier
        assert isinstance(fourier, Tensor)
        matrix = fourier.to(x.dtype)
        real, imaginary = linear(x, matrix, matrix.new_zeros(len(matrix))).chunk(2, -1)
        return torch.hypot(real, imaginary)


class CBraMod(nn.Module):
    """Criss-cross transformer over channels and one-second patches of EEG.

    4.9 M parameters at the published sizes, pretrained by its authors on 19 channels at 200 Hz in µV/100.

    Parameters
    ----------
    d_model : int
        Width, a multiple of 40.
    n_layer, nhead, dim_feedforward, out_dim : int
        nhead is even: half of the heads attend over channels, half over patches.
    conv_channels : int, optional
        Filters of the patch convolutions; by default d_model / 8, the only value that fits.
    compat : {None, "celm"}
        ``"celm"`` computes what CELM's code computes: masks are ignored, and absent channels enter
        attention, norms and the pooled token as the zeros they are given as. The input's scale is the
        caller's: CELM feeds V/100.

    Notes
    -----
    Position is a 19-wide convolution along the channel axis, so the order of the channels matters. A masked
    channel keeps its place there, as zeros. ``proj_out``, the reconstruction head, is part of the features,
    as it is in CELM.
    """

    def __init__(
        self,
        d_model: int = 200,
        n_layer: int = 12,
        nhead: int = 8,
        dim_feedforward: int = 800,
        out_dim: int = 200,
        conv_channels: int | None = None,
        compat: str | None = None,
    ) -> None:
        super().__init__()
        filters = d_model // POSITIONS if conv_channels is None else conv_channels
        if d_model % (GROUPS * POSITIONS) or filters * POSITIONS != d_model:
            raise ValueError(
                f"d_model must be a multiple of 40 and 8 times conv_channels, got {d_model} and {filters}"
            )
        if nhead % 2 or d_model % nhead:
            raise ValueError(f"nhead must be even and divide d_model={d_model}, got {nhead}")
        if compat not in (None, "celm"):
            raise ValueError(f"compat must be None or 'celm', got {compat!r}")
        self.out_dim, self.nhead, self.compat = out_dim, nhead, compat
        self.patch_embedding = PatchEmbedding(d_model, filters)
        layers = (CrissCrossLayer(d_model, nhead, dim_feedforward) for _ in range(n_layer))
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        self.proj_out = nn.Sequential(nn.Linear(d_model, out_dim))

    def multiply_in(self, dtype: torch.dtype | None) -> None:
        """Multiply the layers' matrices in a dtype; None, as at first: in that of the input.

        Sums between layers, norms and the embedding of patches stay as they are. In bfloat16 a token of the
        published sizes moves by some 0.4 % of the tokens' spread.
        """
        for module in self.modules():
            if isinstance(module, CrissCrossLayer):
                module.products = dtype

    def forward(
        self, x: Tensor, channel_mask: Tensor | None = None, patch_mask: Tensor | None = None
    ) -> Tensor:
        """Encode epochs.

        Parameters
        ----------
        x : Tensor, shape (B, C, P, 200)
            µV/100, 200 Hz, P one-second patches of C channels.
        channel_mask : bool Tensor, shape (B, C), optional
            True where a channel is present. What lies in the others, NaN too, changes nothing.
        patch_mask : bool Tensor, shape (B, P), optional
            True where a patch holds signal.

        Returns
        -------
        Tensor, shape (B, C, P, out_dim)
            Zeros where masked.
        """
        return self._features(x, self._mask(x, channel_mask, patch_mask), pooled=False)

    def pooled(
        self, x: Tensor, channel_mask: Tensor | None = None, patch_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Means of what `forward` gives for the same arguments: of each epoch, and of each of its channels.

        The mean of a linear map is the map of the mean, so that what follows the last GELU is computed of
        the means alone: 4 % of the encoder's operations less.

        Returns
        -------
        tuple of Tensor, shapes (B, out_dim) and (B, C, out_dim)
            Over what is not masked; zeros where nothing is left.
        """
        mask = self._mask(x, channel_mask, patch_mask)
        by_channel = self._features(x, mask, pooled=True)
        if mask is None:
            return by_channel.mean(1), by_channel
        share = mask.sum(2, dtype=by_channel.dtype)
        share = share / share.sum(1, keepdim=True).clamp(min=1)
        return (share.unsqueeze(1) @ by_channel).squeeze(1), by_channel

    def tokens(
        self, x: Tensor, channel_mask: Tensor | None = None, patch_mask: Tensor | None = None
    ) -> Tensor:
        """One token an epoch, [B, out_dim]: the mean of what `forward` gives where nothing is masked."""
        return self.pooled(x, channel_mask, patch_mask)[0]

    def _mask(self, x: Tensor, channel_mask: Tensor | None, patch_mask: Tensor | None) -> Tensor | None:
        """What counts, bool [B, C, P]; None where all does."""
        if x.ndim != 4 or x.shape[3] != PATCH_SAMPLES:
            raise ValueError(f"x must be [B, C, P, {PATCH_SAMPLES}], got {list(x.shape)}")
        for name, given, shape in (
            ("channel_mask", channel_mask, x.shape[:2]),
            ("patch_mask", patch_mask, (x.shape[0], x.shape[2])),
        ):
            if given is not None and (given.dtype != torch.bool or given.shape != shape):
                raise ValueError(f"{name} must be bool {list(shape)}, got {given.dtype} {list(given.shape)}")
        if self.compat == "celm" or (channel_mask is None and patch_mask is None):
            return None
        mask = x.new_ones(x.shape[:3], dtype=torch.bool)
        if channel_mask is not None:
            mask = mask & channel_mask[:, :, None]
        if patch_mask is not None:
            mask = mask & patch_mask[:, None, :]
        return None if bool(mask.all()) else mask

    def _features(self, x: Tensor, mask: Tensor | None, pooled: bool) -> Tensor:
        """Features [B, C, P, out_dim], or their means [B, C, out_dim] over patches."""
        if mask is None:
            return self._encode(x, None, None, pooled)
        present = mask.any(2).any(0)
        if bool(present.all()):
            return self._encode(x.masked_fill(~mask.unsqueeze(-1), 0), mask, None, pooled)
        # channels that the whole batch lacks cost nothing
        rows = present.nonzero().squeeze(1)
        out = x.new_zeros(*x.shape[: 2 if pooled else 3], self.out_dim)
        if not len(rows):
            return out
        x, mask = x[:, rows], mask[:, rows]
        there = None if bool(mask.all()) else mask
        if there is not None:
            x = x.masked_fill(~there.unsqueeze(-1), 0)
        features = self._encode(x, there, (rows, len(present)), pooled)
        return out.to(features.dtype).index_copy(1, rows, features)

    def _encode(
        self, x: Tensor, mask: Tensor | None, places: tuple[Tensor, int] | None, pooled: bool
    ) -> Tensor:
        """Encode x, zeros where masked; `places` are its rows among all channels, where some are left out."""
        if torch.is_grad_enabled() or x.device.type != "cpu" or len(x) <= EPOCHS_AT_ONCE:
            return self._encode_together(x, mask, places, pooled)
        parts = [slice(start, start + EPOCHS_AT_ONCE) for start in range(0, len(x), EPOCHS_AT_ONCE)]
        return torch.cat(
            [
                self._encode_together(x[part], None if mask is None else mask[part], places, pooled)
                for part in parts
            ]
        )

    def _encode_together(
        self, x: Tensor, mask: Tensor | None, places: tuple[Tensor, int] | None, pooled: bool
    ) -> Tensor:
        x = self.patch_embedding(x, mask)
        if mask is not None:
            x = x.masked_fill(~mask.unsqueeze(-1), 0)
        if places is None:
            x = self.patch_embedding.add_place(x)
        else:
            rows, channels = places
            spread = x.new_zeros(len(x), channels, *x.shape[2:]).index_copy(1, rows, x)
            x = self.patch_embedding.add_place(spread)[:, rows]
        channel_bias = patch_bias = None
        if mask is not None:
            heads = self.nhead // 2
            channel_bias, patch_bias = _score_bias(mask.transpose(1, 2), heads), _score_bias(mask, heads)
        layers = self.encoder["layers"]
        assert isinstance(layers, nn.ModuleList)
        shape, rows = x.shape[:3], x.reshape(-1, x.shape[3])
        *others, last = layers
        assert isinstance(last, CrissCrossLayer)
        for layer in others:
            rows = layer(rows, shape, channel_bias, patch_bias)
        rows, hidden = last.expand(rows, shape, channel_bias, patch_bias)
        if pooled:
            rows, hidden = (_means(part, shape, mask) for part in (rows, hidden.to(rows.dtype)))
            shape = shape[:2]
            mask = None if mask is None else mask.any(2)
        head = self.proj_out[0]
        assert isinstance(head, nn.Linear)
        rows = rows + linear(hidden, last.linear2.weight, last.linear2.bias).to(rows.dtype)
        x = linear(rows, head.weight, head.bias).view(*shape, -1)
        return x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0)


def _score_bias(mask: Tensor, heads: int) -> Tensor:
    """What to add to the scores [N * heads, keys, queries] for a mask [B, N / B, keys]: [N * heads, keys, 1].

    Rows in which all is masked attend to everything; their result is not used.
    """
    bias = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, MASKED_SCORE)
    return bias.flatten(0, 1).repeat_interleave(heads, 0).unsqueeze(2)


def _means(rows: Tensor, shape: torch.Size, mask: Tensor | None) -> Tensor:
    """Means [B * C, D] over the unmasked patches of rows [B * C * P, D]."""
    # to the operator every channel is an epoch of one channel
    shown = None if mask is None else mask.flatten(0, 1).unsqueeze(1)
    return aggregate_epochs(rows.view(shape[0] * shape[1], 1, shape[2], -1), shown)


def _banded(conv: nn.Conv2d, length: int, stride: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of the linear map that a convolution over [in, length] is, channel by channel."""

    def matrix(weight: Tensor) -> Tensor:
        width = weight.shape[3]
        steps = torch.arange(POSITIONS, device=weight.device)[:, None] * stride - width // 2
        tap = torch.arange(length, device=weight.device)[None, :] - steps  # [POSITIONS, length]
        inside = (tap >= 0) & (tap < width)
        band = weight.squeeze(2)[:, :, tap.clamp(0, width - 1)] * inside  # [out, in, POSITIONS, length]
        return band.permute(0, 2, 1, 3).reshape(len(weight) * POSITIONS, -1)

    assert conv.bias is not None
    return (
        _derived(conv.weight, (length, stride), matrix),
        _derived(conv.bias, POSITIONS, lambda bias: bias.repeat_interleave(POSITIONS)),
    )


def _group_norm(x: Tensor, norm: nn.GroupNorm, mask: Tensor | None) -> Tensor:
    """Group norm of x [B, C, P, D] with each group's statistics over all unmasked patches of the sample."""
    weight, bias = norm.weight.repeat_interleave(POSITIONS), norm.bias.repeat_interleave(POSITIONS)
    if mask is None:
        return F.group_norm(x.permute(0, 3, 1, 2), GROUPS, weight, bias, norm.eps).permute(0, 2, 3, 1)
    batch, dim = x.shape[0], x.shape[3]
    rows = x.to(accumulation_dtype(x.dtype)).view(batch, -1, dim)
    share = mask.view(batch, 1, -1).to(rows.dtype)
    share = share / (share.sum(2, keepdim=True).clamp(min=1) * (dim // GROUPS))
    mean = _spread(share @ rows)
    centred = rows - mean
    scale = (_spread(share @ centred.square()) + norm.eps).rsqrt() * weight
    return torch.addcmul(bias, centred, scale).to(x.dtype).view_as(x)


def _spread(columns: Tensor) -> Tensor:
    """Sum [B, 1, D] within each group and give every column its group's sum."""
    groups = columns.unflatten(2, (GROUPS, -1)).sum(3, keepdim=True)
    return groups.expand(-1, -1, -1, columns.shape[2] // GROUPS).flatten(2)


def _fourier_matrix() -> Tensor:
    """Cosine and sine rows of the one-sided transform, divided by the length: [2 × 101, 200]."""
    n = torch.arange(PATCH_SAMPLES, dtype=torch.float64)
    k = torch.arange(PATCH_SAMPLES // 2 + 1, dtype=torch.float64)
    # the product is reduced to one turn first: exact integers, so exact angles
    angle = (k[:, None] * n % PATCH_SAMPLES) * (2 * math.pi / PATCH_SAMPLES)
    return (torch.cat([angle.cos(), angle.sin()]) / PATCH_SAMPLES).float()
