"""What the commands print: progress, tables, and what takes its time."""
