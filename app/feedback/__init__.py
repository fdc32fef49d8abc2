"""From a complaint to an edit: answers that were just given, and what people say of them."""
