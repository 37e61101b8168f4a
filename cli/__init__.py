"""The ``vitruvius`` command: one file per family of verbs."""
