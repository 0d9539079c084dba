"""The base of every message that crosses a process boundary."""

from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """Frozen; unknown keys are dropped, so that older and newer processes can talk."""

    # "model_" is a prefix of the field's own vocabulary here, not pydantic's.
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())
