"""Linear layers on a CPU with their weights in oneDNN's own layout.

torch multiplies float32 by MKL, which is slow on processors that are not Intel's, and lays a
bfloat16 weight out anew for oneDNN in each call. Packed once, both are multiplied two to four times
as fast, most of all for the few rows of a decode step. torch's own compiler packs weights by the
same two operators.
"""

from __future__ import annotations

import torch
from torch import nn

from worker.checkpoint.plan import Part, part_of
from worker.engine.processor import is_x86

# What the layout is chosen for: the rows of a decode step. Others go through it as well.
_ROWS = 16


class OneDnnLinear(nn.Linear):
    """A linear layer that oneDNN multiplies, whether its weight is packed or not.

    A packed ``weight`` can be multiplied, and not read. Made of a loaded layer by
    `pack_linear_layers`, never by its constructor.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - nn.Linear's name
        """``(..., in_features)`` to ``(..., out_features)``."""
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
            input, self.weight, self.bias, "none", [], ""
        )
        return output


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this machine multiplies packed weights of a dtype faster."""
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not is_x86() or not has_onednn:
        return False
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001
    return dtype is torch.float32


def pack_linear_layers(model: nn.Module) -> int:
    """Lets oneDNN multiply a model's linear layers on the CPU; the bytes of the packed weights.

    A head that is the embedding too is not packed, nor is the projector, which another may take the
    place of. Quantised layers and those of other devices stay as they are.
    """
    embeddings = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    packed = 0
    for name, layer in model.named_modules():
        # Exactly: what others made of it may do more in its forward.
        if type(layer) is not nn.Linear:
            continue
        weight = layer.weight
        if weight.device.type != "cpu" or not can_pack(weight.dtype):
            continue
        layer.__class__ = OneDnnLinear
        if id(weight) in embeddings or part_of(name + ".") is Part.PROJECTOR:
            continue
        inner = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)  # noqa: SLF001
        layer.weight = nn.Parameter(inner, requires_grad=False)
        packed += weight.nbytes
    return packed
