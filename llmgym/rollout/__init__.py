"""The token world: chats become tokens, engines sample, the collector steps environments."""
