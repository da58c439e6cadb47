"""What would make a model cheaper on a chip: each change built, estimated, and where there are
data, measured."""
