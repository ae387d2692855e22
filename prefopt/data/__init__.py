"""The data room: rows of any known format become token ids on disk, with an account of every row.

load      files, saved folders and hub names -> rows with file and number
formats   rows -> `Example`, each format recognised from its columns
select    which responses of an example a method uses, and how they pair
render    an `Example` -> text, through a chat template or as it stands
encode    text -> token ids: boundary, BOS, EOS
fit       lengths: what happens to rows that are too long
build     one source -> one memory-mapped artefact, found again by content
split     train and held-out prompts
dataset   `prepare` and `open_prepared`: what the rest of the house calls
report    the account, as JSON; `show`: the same on a terminal
plan, pack   who sees what when, and `Encoded` -> `Batch`
"""
