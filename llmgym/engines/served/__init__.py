"""Servers behind the engine protocol, whatever they run: started, watched, asked, given weights, started again."""
