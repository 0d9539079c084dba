"""What a model sees of the images: the encoder's own tiles beside each original."""

from __future__ import annotations

from html import escape

from controller.protocol.preview import Preview, PreviewImage
from webui.conversation import UploadedImage
from webui.language import Words


def vision_html(preview: Preview, images: list[UploadedImage], words: Words) -> str:
    """The panel.

    Args:
        preview: what the worker says.
        images: those that were sent, in order.
        words: the language.
    """
    summary = words(
        "The prompt has {tokens} tokens; {image_tokens} of them stand for images.",
        tokens=preview.prompt_tokens,
        image_tokens=preview.image_tokens,
    )
    views = "".join(
        _view(number, image, seen, words)
        for number, (image, seen) in enumerate(zip(images, preview.images, strict=True), 1)
    )
    return f'<p class="summary">{escape(summary)}</p>{views}'


def _view(number: int, image: UploadedImage, seen: PreviewImage, words: Words) -> str:
    original = words("Original, {width} × {height}", width=seen.width, height=seen.height)
    cost = words("{tokens} tokens", tokens=seen.image_tokens)
    title = words("Image {number}", number=number)
    tiles = [tile for tile in seen.tiles if tile.kind == "tile"]
    overviews = [tile for tile in seen.tiles if tile.kind == "overview"]
    columns = seen.grid.columns if seen.grid is not None else len(tiles)
    sides = {(tile.width, tile.height) for tile in seen.tiles}
    sizes = ", ".join(f"{width} × {height}" for width, height in sorted(sides))
    caption = words("{count} tiles of {sizes}", count=len(seen.tiles), sizes=sizes)
    if len(seen.tiles) == 1:
        caption = words("One picture of {sizes}", sizes=sizes)
    grid = "".join(
        f'<img src="{tile.image_url}" width="{tile.width}" height="{tile.height}" '
        f'alt="{escape(words("tile {number}", number=at))}">'
        for at, tile in enumerate(tiles, 1)
    )
    overview = "".join(
        f'<img class="overview" src="{tile.image_url}" width="{tile.width}" '
        f'height="{tile.height}" alt="{escape(words("the whole image, made small"))}">'
        for tile in overviews
    )
    grid_html = f'<div class="tiles" style="--columns:{columns}">{grid}</div>' if grid else ""
    return (
        f'<section class="view"><header><h3>{escape(title)}</h3>'
        f"<span>{escape(cost)}</span></header>"
        f'<div class="pair"><figure><img src="images/{image.digest}" alt="{escape(original)}">'
        f"<figcaption>{escape(original)}</figcaption></figure>"
        f"<figure>{overview}{grid_html}<figcaption>{escape(caption)}</figcaption></figure></div>"
        "</section>"
    )
