"""Input media: find them in a workflow, fetch or decode them, check them, hand them to the engine."""
