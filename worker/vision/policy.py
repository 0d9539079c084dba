"""What images a request may have, and where they may come from."""

from __future__ import annotations

from dataclasses import dataclass, field

from controller.chassis.remote_images import RemotePolicy
from worker.vision.decode import DEFAULT_LIMITS, ImageLimits


@dataclass(frozen=True, slots=True)
class ImagePolicy:
    """What images a request may have.

    Attributes:
        limits: of each.
        max_images: of one request.
        remote: where they may be fetched from.
    """

    limits: ImageLimits = DEFAULT_LIMITS
    max_images: int = 32
    remote: RemotePolicy = field(default_factory=RemotePolicy)


DEFAULT_IMAGE_POLICY = ImagePolicy()
