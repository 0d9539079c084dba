"""How lmms-eval shows a question's picture, and scores an answer."""

from PIL import Image


def visual(doc: dict[str, str]) -> list[Image.Image]:
    """The picture, in a list as the task format has it."""
    return [Image.open(doc["image"]).convert("RGB")]


def score(doc: dict[str, str], results: list[str]) -> dict[str, float]:
    """1 where the answer is the expected one, word for word."""
    return {"exact": float(results[0].strip() == doc["answer"])}
