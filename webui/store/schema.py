"""The tables, by version of the schema.

Times are Unix seconds. What is only shown is JSON; what is searched, counted or joined has a column
of its own.
"""

from __future__ import annotations

# Each entry takes the schema from one version to the next; the file knows its version
# (`PRAGMA user_version`). What was released once is never changed, only added to.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE conversation (
        id            TEXT PRIMARY KEY,
        owner         TEXT NOT NULL,
        kind          TEXT NOT NULL,              -- webui.conversation.Kind
        title         TEXT NOT NULL,              -- a person's own; '' if none was given
        is_pinned     INTEGER NOT NULL,
        branched_from TEXT,                       -- another conversation, which may be gone
        created_at    REAL NOT NULL,
        used_at       REAL NOT NULL,              -- written to, or opened
        arrangement   TEXT NOT NULL               -- JSON: columns, order, settings
    ) STRICT;
    CREATE INDEX conversation_of_owner ON conversation (owner, is_pinned, used_at);
    CREATE INDEX conversation_unused ON conversation (is_pinned, used_at);

    CREATE TABLE turn (
        conversation_id TEXT NOT NULL REFERENCES conversation ON DELETE CASCADE,
        number          INTEGER NOT NULL,         -- from 0
        text            TEXT NOT NULL,
        created_at      REAL NOT NULL,
        PRIMARY KEY (conversation_id, number)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE turn_image (
        conversation_id TEXT NOT NULL,
        turn            INTEGER NOT NULL,
        position        INTEGER NOT NULL,         -- from 0, the order of the prompt
        digest          TEXT NOT NULL,            -- SHA-256 of the file, which names it
        media_type      TEXT NOT NULL,
        width           INTEGER NOT NULL,         -- pixels
        height          INTEGER NOT NULL,
        num_bytes       INTEGER NOT NULL,
        name            TEXT NOT NULL,            -- what the person's file was called
        PRIMARY KEY (conversation_id, turn, position),
        FOREIGN KEY (conversation_id, turn)
            REFERENCES turn (conversation_id, number) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX turn_image_of_digest ON turn_image (digest);

    CREATE TABLE answer (
        id              TEXT PRIMARY KEY,
        conversation_id TEXT NOT NULL,
        turn            INTEGER NOT NULL,
        lane            INTEGER NOT NULL,         -- which column, wherever it stands now
        attempt         INTEGER NOT NULL,         -- the highest of a lane is shown
        model           TEXT NOT NULL,
        state           TEXT NOT NULL,            -- webui.answer.AnswerState
        text            TEXT NOT NULL,
        finish_reason   TEXT,
        error           TEXT,
        error_code      TEXT,
        worker_id       TEXT,                     -- who answered
        server          TEXT NOT NULL,            -- which process of the page asked
        created_at      REAL NOT NULL,
        sampling        TEXT NOT NULL,            -- JSON: webui.sampling.Sampling
        request         TEXT,                     -- JSON: the body, images by digest
        asked           TEXT,                     -- JSON: the model's card as it was then
        figures         TEXT NOT NULL,            -- JSON: usage, metrics, the page's own clock
        UNIQUE (conversation_id, turn, lane, attempt),
        FOREIGN KEY (conversation_id, turn)
            REFERENCES turn (conversation_id, number) ON DELETE CASCADE
    ) STRICT;
    CREATE INDEX answer_under_way ON answer (server) WHERE state IN ('waiting', 'streaming');
    CREATE INDEX answer_of_model ON answer (model, created_at);

    CREATE TABLE feedback (
        answer_id TEXT NOT NULL REFERENCES answer ON DELETE CASCADE,
        person    TEXT NOT NULL,
        rating    TEXT,                           -- webui.answer.Rating; NULL: a note alone
        reasons   TEXT NOT NULL,                  -- JSON: a list of words
        note      TEXT NOT NULL,
        given_at  REAL NOT NULL,
        PRIMARY KEY (answer_id, person)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE battle (
        id              TEXT PRIMARY KEY,         -- what the browser knows it by until the vote
        conversation_id TEXT NOT NULL,            -- which may be deleted; the vote stays
        person          TEXT NOT NULL,
        model_left      TEXT NOT NULL,
        model_right     TEXT NOT NULL,
        tags            TEXT NOT NULL,            -- JSON: a list of words
        winner          TEXT,                     -- webui.leaderboard.Winner; NULL: no vote yet
        reasons         TEXT NOT NULL,            -- JSON: a list of words
        num_turns       INTEGER NOT NULL,         -- when it was voted on
        language        TEXT NOT NULL,            -- of the page
        created_at      REAL NOT NULL,
        voted_at        REAL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX battle_voted ON battle (voted_at) WHERE voted_at IS NOT NULL;
    """,
)
