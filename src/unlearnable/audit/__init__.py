"""How well a protected set really holds: a grid of training runs, a store of their results, a verdict."""
