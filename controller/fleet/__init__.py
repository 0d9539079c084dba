"""From a fleet file to running processes: the file's model, the commands, the supervisor."""
