from .environment import Code as Code
