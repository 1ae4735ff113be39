"""What each command does, one module a command or a group of them. Only `cli.arguments` imports it."""
