"""Where conversations, answers, feedback and images are kept: one SQLite file, images beside it.

::

    ConversationStore   get, put, summaries, rename, pin, delete, judge, use_of_disk
      Database          the file and the one thread that talks to it: `run(work)`
      MIGRATIONS        the schema, by version; append to it, never change what is there
      ImageFolder       images by their SHA-256, so that the same one is kept once

`get` gives the same object for the same id as long as anybody holds it, so that a stream writes
into what a second tab reads. `put` writes what has changed since. Other parts of the page that keep
something of their own (votes of a battle, say) append their tables to `MIGRATIONS` and ask through
`ConversationStore.database`; an answer's row has its model, state, text, request and figures, and
`feedback` has what people thought of it (the columns are explained in `webui.store.schema`).
"""

from webui.store.conversations import ConversationStore
from webui.store.database import Database, StoreError
from webui.store.images import ImageFolder
from webui.store.pruning import Bounds
from webui.store.schema import MIGRATIONS
from webui.store.summaries import Summary

__all__ = [
    "MIGRATIONS",
    "Bounds",
    "ConversationStore",
    "Database",
    "ImageFolder",
    "StoreError",
    "Summary",
]
