"""Folders in which external code is looked for besides Python's own; a command adds the current one."""

FOLDERS: list[str] = []
