"""Other ways to correct a model, measured beside the editors and served by nobody."""
