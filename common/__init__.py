"""What every folder may import: reporting, the run's context, the workspace, registries, files and processes."""
