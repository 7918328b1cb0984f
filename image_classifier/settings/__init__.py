"""The settings file: sections, checks, and messages with line numbers."""
