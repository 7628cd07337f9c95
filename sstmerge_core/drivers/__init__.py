"""How the methods of each kind are applied to adapters: factors in, `Merged` out, one module at a time."""
