"""Where a model makes its answer, and where in the picture it looks: VisEdit's two attributions."""
