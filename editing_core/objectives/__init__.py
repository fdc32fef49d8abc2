"""What a trainer minimises: pure loss functions and the objectives that combine them."""
