"""What `paragone inspect` can be told: a checkpoint, and how a worker would hold it."""

from __future__ import annotations

from pydantic import Field

from worker.loading_settings import LoadingSettings

PROGRAM = "paragone inspect"
# The worker's: what is set for it decides here too, so that the answer is about the same load.
ENV_PREFIX = "PARAGONE_WORKER_"


class InspectSettings(LoadingSettings):
    """Says what a checkpoint is and whether it will fit on this machine; loads no weights."""

    model_path: str = Field(
        min_length=1,
        json_schema_extra={"positional": "PATH"},
        description="checkpoint: a folder, or owner/name on the Hugging Face hub",
    )
    as_json: bool = Field(
        default=False, json_schema_extra={"flags": ["--json"]}, description="print JSON"
    )
