"""Edits, from the request to what becomes of them: made, switched, made anew."""
