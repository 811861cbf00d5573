"""The store: what teachers have said, in Arrow files, so that it is computed once.

`stored` is the source that students see; `shelf` finds rows among `shard` files, `encodings` says how numbers lie in
them, `keys` by what they are found; `writing` and `claims` serve several who write at once; `upkeep` lists, verifies
and removes.
"""
