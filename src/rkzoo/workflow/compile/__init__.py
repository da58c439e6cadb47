"""From a resolved model to a .rknn, or to a build that the simulator keeps alive."""
