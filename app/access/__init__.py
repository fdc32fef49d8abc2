"""Who may use the server: API keys, what each may do, and how often."""
