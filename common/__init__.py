"""What several scripts must know, each fact in the file named after it; docs/design.md says why. It imports no script."""
