"""The settings file in TOML: sections, checks, and errors with line numbers."""
