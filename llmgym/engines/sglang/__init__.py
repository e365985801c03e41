"""What `llmgym.engines.served` has to know of SGLang, and SGLang in this process."""
