"""From a picture to what the tower sees: padded to a square, 112 pixels a side.

The same steps as LLaVA's `image_aspect_ratio: pad` (bars in CLIP's mean colour) followed by
`CLIPImageProcessor`, kept as bytes so that many pictures fit in memory; a test holds them equal.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from PIL import Image

IMAGE_SIDE: Final = 112
PATCH_SIDE: Final = 14
PATCHES_A_SIDE: Final = IMAGE_SIDE // PATCH_SIDE
PATCHES: Final = PATCHES_A_SIDE**2
CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Final = (0.26862954, 0.26130258, 0.27577711)
_PAD: Final = tuple(int(mean * 255) for mean in CLIP_MEAN)


def pad_to_square(picture: Image.Image) -> Image.Image:
    """The picture in the middle of a square, its bars in CLIP's mean colour."""
    width, height = picture.size
    if width == height:
        return picture
    side = max(width, height)
    square = Image.new("RGB", (side, side), _PAD)
    square.paste(picture, ((side - width) // 2, (side - height) // 2))
    return square


def to_bytes(picture: Image.Image) -> np.ndarray:
    """uint8, (112, 112, 3)."""
    square = pad_to_square(picture)
    return np.array(square.resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BICUBIC))


def to_pixel_values(pictures: np.ndarray) -> torch.Tensor:
    """Bytes (B, 112, 112, 3) to normalised floats (B, 3, 112, 112)."""
    values = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(255)
    mean = torch.tensor(CLIP_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(CLIP_STD).view(1, 3, 1, 1)
    return values.sub_(mean).div_(std)
