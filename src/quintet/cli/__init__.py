"""The `quintet` command.  May import everything."""
