"""What an edit does to hidden states, and how it is stored."""
