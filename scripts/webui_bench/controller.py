"""A controller whose models write at a given rate, in a process of its own."""

from __future__ import annotations

import argparse

import uvicorn

from tests.webui.fake_controller import FakeController, demo_models

_TEXT = "The left half shows a red circle and the right half shows a blue square"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="tokens a second of one stream")
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--hung", action="store_true", help="the last model never answers")
    args = parser.parse_args()
    fake = FakeController(demo_models(pieces_per_second=args.rate))
    words = _TEXT.split()
    for model in fake.models.values():
        model.answer = " ".join(words[at % len(words)] for at in range(args.tokens))
    if args.hung:
        list(fake.models.values())[-1].fault = "hang"
    uvicorn.run(fake.app(), host="127.0.0.1", port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
