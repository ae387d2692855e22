"""`prefopt export`: a trained model as a folder for others, merged, checked by a fresh process, pushed or converted."""
