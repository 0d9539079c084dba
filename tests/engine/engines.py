"""Engines in tests: asked, and found empty afterwards."""

from contextlib import aclosing, asynccontextmanager

from worker.engine.protocol import TextDelta


@asynccontextmanager
async def running(engine_class, model, **options):
    """An engine over a fake model, which must have let go of everything in the end."""
    engine = engine_class(model, **options)
    try:
        yield engine
    finally:
        if model.gate is not None:
            model.gate.set()
        await engine.aclose()
        assert (engine.stats().running, engine.stats().waiting) == (0, 0)
        assert model.open_answers == 0
        assert getattr(model, "rows", []) == []


async def events_of(engine, request):
    async with aclosing(engine.generate(request)) as events:
        return [event async for event in events]


async def text_of(engine, request):
    return "".join(e.text for e in await events_of(engine, request) if isinstance(e, TextDelta))
