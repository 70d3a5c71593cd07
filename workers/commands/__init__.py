"""What the words of `reelway` do, a module a topic; `workers.cli` has the table of them."""
