"""SGLang behind the engine protocol: in this process, in servers of ours, or in servers given by URL."""
