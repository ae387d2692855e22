"""The data room: rows of any known format become token ids on disk, with an account of every row.

load      files, saved folders and hub names -> rows with file and number
formats   the known formats; `recognised`: rows of one -> `Example`, with the columns the method asks for (`extras`)
needs     whether a file has what the method asks for
select    which responses of an example a method uses; `pairing`: how they pair; `verdicts`: what judges predict
render    an `Example` -> text, through a chat template or as it stands
encode    text -> token ids: boundary, BOS, EOS; `schema`: what is kept of a row
fit       lengths: what happens to rows that are too long
build     one source -> one memory-mapped artefact, found again by content
split     train and held-out prompts
dataset   `prepare` and `open_prepared`: what the rest of the house calls
report    the account, as JSON; `conversions`: what was lost or invented, in words; `show`: the same on a terminal
plan, pack   who sees what when, and `Encoded` -> `Batch`
"""
