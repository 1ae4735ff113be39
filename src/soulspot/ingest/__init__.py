"""What soulspot does with a file, in the order of the flow."""
