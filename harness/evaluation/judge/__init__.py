"""Judged tasks: what a judge is asked, what its words count for, and whether it may be believed.

A judge is a model at hand or an OpenAI-compatible endpoint. It reads stored answers; its replies are stored as answers
are, so that scoring again needs no judge. Its scores hold for this judge, this wording and this reference, and are
never called by the name of a public board.
"""
