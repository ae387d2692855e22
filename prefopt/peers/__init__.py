"""`prefopt import`: the configuration of another trainer as a recipe, with a line for every key that it has.

One module for each peer holds its tables; `taking` keeps the account, so that no key is dropped without a word.
"""
