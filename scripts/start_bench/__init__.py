"""How long a fleet takes until all of it is ready, beside its workers started one by one."""
