"""What is on disk, by its files and never by its name; and how it gets into memory."""
