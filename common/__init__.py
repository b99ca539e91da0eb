"""What several scripts must know, each fact in the file named after it. Imports nothing from the scripts; docs/design.md says why."""
