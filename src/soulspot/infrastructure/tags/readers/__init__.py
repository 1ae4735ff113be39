"""The worker processes that read tags and covers, and their pool. `bootstrap` and the page start them."""
