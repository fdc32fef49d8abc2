"""What happens here, told to a receiver elsewhere: signed, in order, at least once."""
