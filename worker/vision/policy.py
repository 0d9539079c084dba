"""What images a request may have, and where they may come from. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from worker.vision.decode import DEFAULT_LIMITS, ImageLimits


@dataclass(frozen=True, slots=True)
class RemotePolicy:
    """Where images may come from, and at what cost.

    Attributes:
        hosts: names that may be asked: "example.org", "*.example.org" (every name below it), or
            "*"; none: nothing is fetched.
        seconds: for one image, all its redirects included.
        max_redirects: of one image.
    """

    hosts: tuple[str, ...] = ()
    seconds: float = 10.0
    max_redirects: int = 3

    def allows(self, host: str) -> bool:
        """Whether a host is on the list; whatever it leads to is judged later."""
        host = host.lower().rstrip(".")
        below = (pattern[1:] for pattern in self.hosts if pattern.startswith("*."))
        return "*" in self.hosts or host in self.hosts or host.endswith(tuple(below))


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
