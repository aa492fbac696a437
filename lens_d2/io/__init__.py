"""Files, errors, progress and commands: what every other room needs."""
