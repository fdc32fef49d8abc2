"""Which edits a query fires: hard filter, vision sentinel, text gate, soft weights."""
