"""Do two questions ask for the same thing? An encoder of questions and its corpus."""
