"""Model contracts: the input and output descriptions that graph, zoo, tasks, runtime and toolkit
share.

They are schema-checked (an unknown key is an error) because they come from yaml cards, from sidecar
files and from the custom string inside a .rknn.
"""
