"""How the embedded model's weights were made, stage by stage, resumable after a kill."""
